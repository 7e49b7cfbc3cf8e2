"""What a recipe's data and code are, as digests: the same on every machine, changed by whatever changes the result.

Nothing is imported or executed: modules are found the way Python would find them and read as text.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.metadata
import json
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from edgekit.errors import DataError, RecipeError
from edgekit.recipe.schema import DataSection
from edgekit.store.digests import file_digests

_OWN_PACKAGE = "edgekit"


def data_digest(section: DataSection) -> str:
    """Digest of everything that decides the samples.

    That is: the settings of the section; the content of the files it names (``npz``, ``images``, ``csv`` with the
    images it lists, and any argument that is the path of an existing file or folder); the code of a ``module``.
    Paths themselves do not count, contents do.

    Args:
        section: As resolved.

    Returns:
        A SHA-256 in hexadecimal digits.

    Raises:
        DataError: A named file or folder does not exist.
        RecipeError: The module of ``module:callable`` cannot be found, or does not parse.
    """
    settings = section.model_dump(mode="json", exclude={"npz", "images", "csv", "args"})
    parts: dict[str, Any] = {"settings": settings, "args": _by_content(section.args)}
    if section.module is not None:
        parts["code"] = code_digest(section.module)
    for key in ("npz", "images", "csv"):
        named = getattr(section, key)
        if named is not None:
            path = Path(named)
            if not path.exists():
                raise DataError(f"data.{key}: expected a file or folder at {path}; there is none")
            parts[key] = path_digest(path)
            if key == "csv":
                parts["listed"] = _listed_digest(path)
    return _digest_json(parts)


def code_digest(entry: str) -> str:
    """Digest of the code behind ``package.module:callable``.

    The module, the packages around it and every project-local module that they import, directly or not, count with
    their names and contents. Installed distributions count with their versions; the standard library with Python's;
    edgekit itself does not count here, because each stage is keyed by edgekit's version already.

    Args:
        entry: ``package.module:callable``, or only a module.

    Returns:
        A SHA-256 in hexadecimal digits. It does not depend on where the files lie.

    Raises:
        RecipeError: The module cannot be found, or a file does not parse.
    """
    module = entry.partition(":")[0]
    if not module or locate_module(module) is None:
        raise RecipeError(
            f"expected the name of a module that can be imported; received {entry!r}. "
            "Run from the folder that holds the package, or install it."
        )
    local: dict[str, str] = {}
    installed: set[str] = set()
    waiting = [module]
    while waiting:
        for name in _with_parents(waiting.pop()):
            path = None if name in local else locate_module(name)
            if path is None:
                continue
            if not _is_local(name, path):
                installed.add(name.partition(".")[0])
                continue
            source = path.read_bytes()
            local[name] = hashlib.sha256(source).hexdigest()
            waiting.extend(_imports(name, path, source))
    versions = {name: _version(name) for name in sorted(installed - {_OWN_PACKAGE} - set(sys.stdlib_module_names))}
    python = ".".join(str(part) for part in sys.version_info[:2])
    return _digest_json({"entry": entry, "modules": local, "versions": versions, "python": python})


def path_digest(path: Path) -> str:
    """Digest of a file's content, or of a folder's relative names and contents.

    Raises:
        DataError: The path cannot be read.
    """
    try:
        if path.is_file():
            return file_digests([path])[0]
        members = [member for member in sorted(path.rglob("*")) if member.is_file()]
        names = [member.relative_to(path).as_posix() for member in members]
        return _digest_json([list(pair) for pair in zip(names, file_digests(members), strict=True)])
    except OSError as error:
        raise DataError(f"expected readable files at {path}; received: {error}") from error


def locate_module(name: str) -> Path | None:
    """Find the source file of a module without importing it or its parents.

    Args:
        name: Dotted name.

    Returns:
        The ``.py`` file; None for built-in and compiled modules, namespace packages and names that do not exist.
    """
    search: list[str] | None = [str(Path.cwd()), *sys.path]
    spec = None
    for part in name.split("."):  # the bare part: of a dotted name, a namespace package looks for its imported parent
        spec = importlib.machinery.PathFinder.find_spec(part, search)
        if spec is None:
            return None
        search = list(spec.submodule_search_locations or ())
    origin = Path(spec.origin) if spec is not None and spec.origin else None
    return origin if origin is not None and origin.suffix == ".py" and origin.is_file() else None


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _imports(name: str, path: Path, source: bytes) -> Iterator[str]:
    """Yield what a module may import: for ``from a import b`` both ``a`` and ``a.b``."""
    try:
        tree = ast.parse(source, filename=path.name)
    except (SyntaxError, ValueError) as error:
        raise RecipeError(f"the module {name!r} ({path}) does not parse: {error}") from error
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if node.level == 0:
        return node.module or ""
    parts = package.split(".")
    kept = parts[: len(parts) - (node.level - 1)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _is_local(name: str, path: Path) -> bool:
    if name.partition(".")[0] in {_OWN_PACKAGE, *sys.stdlib_module_names}:
        return False
    return not any(path.resolve().is_relative_to(folder) for folder in _installation_folders())


@cache
def _installation_folders() -> tuple[Path, ...]:
    named = [sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders: Iterable[str] = [*named, *site.getsitepackages(), site.getusersitepackages()]
    return tuple(Path(folder).resolve() for folder in folders if folder)


def _version(top_level: str) -> str:
    try:
        return importlib.metadata.version(top_level)
    except importlib.metadata.PackageNotFoundError:
        distributions = _distributions().get(top_level, [])
        return ", ".join(sorted(f"{name} {importlib.metadata.version(name)}" for name in set(distributions)))


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


def _by_content(value: Any) -> Any:
    """Replace paths of existing files in arguments by digests of what lies there."""
    if isinstance(value, dict):
        return {str(key): _by_content(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_by_content(member) for member in value]
    if isinstance(value, str) and _exists(value):
        return {"content": path_digest(Path(value))}
    return value


def _exists(text: str) -> bool:
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):  # too long for a name, or a NUL inside: a text that is no path
        return False


def _listed_digest(table: Path) -> str:
    import csv

    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            names = [row.get("path") or "" for row in csv.DictReader(stream)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: expected a CSV file in UTF-8; it cannot be read ({error})") from error
    files = [table.parent / name for name in names]
    found = iter(file_digests(file for file in files if file.is_file()))
    return _digest_json([next(found) if file.is_file() else "missing" for file in files])


def _digest_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()
