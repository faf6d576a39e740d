"""Lets a cache see code: one hash over a function and all the local code it uses, and nothing else."""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
LOCAL_PACKAGES = ("modules", "components", "pipelines")


def executor_fingerprint(class_path: str, project: Path = PROJECT) -> str:
    """Hashes the source that a component's executor runs, as `code_fingerprint` does.

    Args:
        class_path: import path of the executor as TFX names it: of the component function `components.x.Name` that is
            `components.x.Name_Executor`.
        project: folder that the local packages lie in.

    Returns:
        sha256 in hexadecimal digits, or "" for an executor that is not this project's.
    """
    is_local = class_path.split(".")[0] in LOCAL_PACKAGES
    return code_fingerprint(class_path.removesuffix("_Executor"), project) if is_local else ""


def project_fingerprint(project: Path = PROJECT) -> str:
    """Hashes all source files of the local packages, as sha256 in hexadecimal digits: whether two machines have the
    same code."""
    digest = hashlib.sha256()
    for path in sorted(path for package in LOCAL_PACKAGES for path in (project / package).rglob("*.py")):
        digest.update(f"{path.relative_to(project).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def code_fingerprint(function: str, project: Path = PROJECT) -> str:
    """Hashes the source that a function runs, without importing it.

    Of the function's own module that is the function and the definitions it uses, directly or through each other;
    of this project's other modules it is the whole of each module that those import, and of what these import in
    turn. So an edit elsewhere in the function's module changes nothing, nor does one of comments or layout.

    Args:
        function: import path, e.g. "modules.classifier.run_fn".
        project: folder that the local packages lie in.

    Returns:
        sha256 in hexadecimal digits.

    Raises:
        KeyError: the module has no such name.
    """
    module, name = function.rsplit(".", 1)
    tree = _parse(module, project)
    definitions = _definitions(tree)
    used = _reachable([name], lambda key: sorted(_names(definitions[key]) & definitions.keys()))
    imported = {target for key in used for target in _local_imports(definitions[key], project)} - {module}
    modules = _reachable(sorted(imported), lambda key: _local_imports(_parse(key, project), project))
    parts = [f"{key} {ast.unparse(definitions[key])}" for key in sorted(used)]
    parts += [f"{key} {ast.unparse(_parse(key, project))}" for key in sorted(modules)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@cache
def _read(path: Path, modified: int) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _file(module: str, project: Path) -> Path | None:
    """The source file of a local module, none if there is no such module."""
    path = project.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    is_local = module.split(".")[0] in LOCAL_PACKAGES
    return next((file for file in candidates if is_local and file.is_file()), None)


def _parse(module: str, project: Path) -> ast.Module:
    path = _file(module, project)
    if path is None:
        raise KeyError(f"no module {module} in {project}")
    return _read(path, path.stat().st_mtime_ns)


def _definitions(tree: ast.Module) -> dict[str, ast.AST]:
    """Name → every statement of the module's top level that binds it, imports included."""
    statements: dict[str, list[ast.stmt]] = {}
    for statement in _one_name_a_line(tree.body):
        for name in _bound(statement):
            statements.setdefault(name, []).append(statement)
    return {name: ast.Module(body=body, type_ignores=[]) for name, body in statements.items()}


def _one_name_a_line(body: Iterable[ast.stmt]) -> Iterable[ast.stmt]:
    """Splits imports of several names, of which a function may use one."""
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from (ast.Import([alias]) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield from (ast.ImportFrom(statement.module, [alias], statement.level) for alias in statement.names)
        else:
            yield statement


def _bound(statement: ast.stmt) -> Iterable[str]:
    """Names that a statement of a module's top level binds."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [statement.name]
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).split(".")[0] for alias in statement.names]
    stored = (node for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    return {node.id for node in stored}


def _names(tree: ast.AST) -> set[str]:
    """Every name that a piece of code reads."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _local_imports(tree: ast.AST, project: Path) -> list[str]:
    """The local modules that a piece of code imports, at its top or inside its functions."""
    targets = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from modules import bert` imports the module modules.bert, `from modules.bert import Bert` a name of it.
            targets |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return sorted(target for target in targets if _file(target, project))


def _reachable(start: Iterable[str], neighbours) -> set[str]:
    """All keys that can be reached from `start`, itself included."""
    seen, waiting = set(), list(start)
    while waiting:
        key = waiting.pop()
        if key not in seen:
            seen.add(key)
            waiting += neighbours(key)
    return seen
