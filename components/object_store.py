"""Object stores as a file system for TFX's `fileio`: s3:// and minio://, of which TensorFlow has none.

Importing this module is all that it takes. Credentials and address come from the environment, as every S3 client reads
them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL for a store that is not Amazon's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from tfx.dsl.io import fileio, filesystem, filesystem_registry

from modules.errors import TextrailError

STORES = {"s3://": "s3", "minio://": "s3"}   # fsspec's name of what serves a scheme.
# What makes a folder a model: it comes last and goes first, so that whoever looks sees a whole model or none.
MODEL = "saved_model.pb"


def _open_store(path: Any) -> tuple[Any, str]:
    """The store behind a URI, and the key in it: `s3://bucket/a/` is `bucket/a`.

    Raises:
        TextrailError: there are no means to reach it.
    """
    import fsspec

    scheme, mark, key = str(path).partition("://")
    kind = STORES[scheme + mark]
    try:
        # Other processes write, too: what was listed a moment ago may be different now.
        options = {"use_listings_cache": False} if kind == "s3" else {}
        return fsspec.filesystem(kind, **options), key.rstrip("/")
    except ImportError as error:
        raise TextrailError(f"s3fs, for {path}", f"an environment without it ({error})",
                            "Install it: `uv sync --extra s3`; the image of kubeflow/Dockerfile has it.") from error


class ObjectStore(filesystem.Filesystem):
    """Objects by URI. Folders are what the names of objects have in common, so that none is ever made."""

    SUPPORTED_SCHEMES = list(STORES)

    @staticmethod
    def open(name: Any, mode: str = "r") -> Any:
        store, key = _open_store(name)
        try:
            return store.open(key, mode)
        except FileNotFoundError as error:
            raise fileio.NotFoundError() from error

    @staticmethod
    def copy(src: Any, dst: Any, overwrite: bool = False) -> None:
        store, source = _open_store(src)
        _, target = _open_store(dst)
        if not overwrite and store.exists(target):
            raise OSError(f"{dst} is there already")
        store.cp_file(source, target)

    @staticmethod
    def exists(path: Any) -> bool:
        store, key = _open_store(path)
        return store.exists(key)

    @staticmethod
    def glob(pattern: Any) -> list[Any]:
        store, key = _open_store(pattern)
        scheme = str(pattern).partition("://")[0]
        return [f"{scheme}://{found.lstrip('/')}" for found in store.glob(key)]

    @staticmethod
    def isdir(path: Any) -> bool:
        store, key = _open_store(path)
        return store.isdir(key)

    @staticmethod
    def listdir(path: Any) -> list[Any]:
        store, key = _open_store(path)
        if not store.isdir(key):
            return []   # A folder that nobody wrote into.
        return sorted({found.rstrip("/").rpartition("/")[2] for found in store.ls(key, detail=False)} - {""})

    @staticmethod
    def makedirs(path: Any) -> None:
        pass

    @staticmethod
    def mkdir(path: Any) -> None:
        pass

    @staticmethod
    def remove(path: Any) -> None:
        store, key = _open_store(path)
        store.rm_file(key)

    @staticmethod
    def rename(src: Any, dst: Any, overwrite: bool = False) -> None:
        """Copies objects and deletes the others: a store has no other way, and others may look meanwhile."""
        store, source = _open_store(src)
        _, target = _open_store(dst)
        if not overwrite and store.exists(target):
            raise OSError(f"{dst} is there already")
        for key in _model_last(_objects(store, source), source):
            store.cp_file(key, target + key.removeprefix(source))
        ObjectStore.rmtree(src)

    @staticmethod
    def rmtree(path: Any) -> None:
        store, key = _open_store(path)
        for found in reversed(_model_last(_objects(store, key), key)):
            store.rm_file(found)

    @staticmethod
    def stat(path: Any) -> Any:
        store, key = _open_store(path)
        return store.info(key)

    @staticmethod
    def walk(top: Any, topdown: bool = True, onerror: Any = None) -> Iterable[tuple[Any, list[Any], list[Any]]]:
        store, key = _open_store(top)
        scheme = str(top).partition("://")[0]
        for folder, folders, files in store.walk(key, topdown=topdown):
            yield f"{scheme}://{folder.lstrip('/')}", list(folders), list(files)


def _objects(store: Any, key: str) -> list[str]:
    """All objects of a folder, or the one of that name; keys without a leading slash."""
    return [found.lstrip("/") for found in cast(list[str], store.find(key))]


def _model_last(keys: list[str], folder: str) -> list[str]:
    """The folder's own model behind all else, be that models, too, such as an encoder's that goes along."""
    return sorted(keys, key=lambda key: key == f"{folder.lstrip('/')}/{MODEL}")


def register(scheme: str, kind: str) -> None:
    """Has URIs of another scheme served.

    Args:
        scheme: e.g. "memory://".
        kind: fsspec's name, e.g. "memory".
    """
    STORES[scheme] = kind
    ObjectStore.SUPPORTED_SCHEMES = list(STORES)
    filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.register(ObjectStore, priority=-1)


# fileio's own plugins are registered by now; TensorFlow's claims s3:// without serving it.
filesystem_registry.DEFAULT_FILESYSTEM_REGISTRY.register(ObjectStore, priority=-1)
