"""Weights as files: those of the last validation rounds, which a training keeps, and their mean."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf
from safetensors.numpy import load, save

SUFFIX = ".safetensors"


class KeptWeights:
    """A folder of safetensors files, one a set of weights.

    A tensor is named by its place among all and its variable's name, which alone need not be unique:
    `017 encoder_2/attention/qkv/kernel`.

    Args:
        folder: where they are; made when the first comes.
        names: of the variables, in a fixed order.
    """

    def __init__(self, folder: str, names: Sequence[str]):
        self.folder = folder
        self.names = [f"{index:03d} {name}" for index, name in enumerate(names)]

    def write(self, name: str, variables: Sequence[tf.Variable], folder: str | None = None) -> None:
        """Writes the weights as they are now: beside, then renamed, so that a kill leaves no half of a file.

        Args:
            name: of the file, without suffix.
            variables: as many as there are names.
            folder: somewhere else than in this one.
        """
        tensors = {key: variable.numpy() for key, variable in zip(self.names, variables, strict=True)}
        self._put(save(tensors), name, folder or self.folder)

    def copy(self, name: str, folder: str) -> None:
        """Copies a file to another folder."""
        with tf.io.gfile.GFile(self._path(name, self.folder), "rb") as file:
            self._put(file.read(), name, folder)

    def mean(self, names: Sequence[str]) -> list[np.ndarray]:
        """The mean of several files' weights, in the order of the variables; they are read one after the other."""
        total: dict[str, np.ndarray] = {}
        for name in names:
            with tf.io.gfile.GFile(self._path(name, self.folder), "rb") as file:
                tensors = load(file.read())
            total = {key: total[key] + tensor if total else tensor for key, tensor in tensors.items()}
        return [total[key] / np.float32(len(names)) for key in self.names]

    def forget_all_but(self, names: Iterable[str]) -> None:
        """Deletes the other files."""
        kept = {name + SUFFIX for name in names}
        for name in tf.io.gfile.listdir(self.folder) if tf.io.gfile.exists(self.folder) else []:
            if name not in kept:
                tf.io.gfile.remove(os.path.join(self.folder, name))

    def _put(self, content: bytes, name: str, folder: str) -> None:
        tf.io.gfile.makedirs(folder)
        path = self._path(name, folder)
        with tf.io.gfile.GFile(f"{path}.part", "wb") as file:
            file.write(content)
        tf.io.gfile.rename(f"{path}.part", path, overwrite=True)

    @staticmethod
    def _path(name: str, folder: str) -> str:
        return os.path.join(folder, name + SUFFIX)
