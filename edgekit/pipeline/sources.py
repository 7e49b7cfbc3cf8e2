"""What a model's source is: a file, a folder or code, and whose model it is. Nothing is imported or executed."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from edgekit.contracts import FrameworkSpec
from edgekit.data.fingerprint import locate_module
from edgekit.errors import ModelError
from edgekit.frameworks import framework_specs
from edgekit.records import FrameworkName

__all__ = ["find_framework", "framework_of_folder", "is_entry", "source_kinds"]


def is_entry(source: str) -> bool:
    """Say whether a source means code (``package.module:callable``) rather than a file or folder."""
    return ":" in source and not Path(source).exists()


def find_framework(source: str, builder: str | None = None) -> FrameworkName:
    """Find out whose model a source is: by its suffix, by what its folder holds, or by what its module imports.

    Args:
        source: As in a recipe's ``model.source``.
        builder: As in ``model.builder``; where it is given, the source is its weights and the builder decides.

    Raises:
        ModelError: Nothing tells, or two frameworks are imported; the message says how to state it.
    """
    entry = builder or source
    return _framework_of_module(entry) if is_entry(entry) else _framework_of_path(entry)


def framework_of_folder(path: Path) -> FrameworkName | None:
    """Return whose model a folder holds, by the file that marks it; None: no framework reads such a folder."""
    for spec in framework_specs().values():
        if spec.folder_marker is not None and (path / spec.folder_marker).is_file():
            return spec.name
    return None


def source_kinds(specs: Iterable[FrameworkSpec] | None = None) -> str:
    """Return what a source may be, for messages: every suffix of every framework, and the folders they read."""
    known = tuple(framework_specs().values() if specs is None else specs)
    suffixes = ", ".join(suffix for spec in known for suffix in spec.suffixes)
    markers = [f", or a folder that holds {spec.folder_marker}" for spec in known if spec.folder_marker]
    return f"'package.module:callable', a file ending in {suffixes}{''.join(markers)}"


def _framework_of_path(source: str) -> FrameworkName:
    path = Path(source)
    if path.is_dir():
        found = framework_of_folder(path)
        if found is not None:
            return found
        raise ModelError(
            f"model: expected {source_kinds()}; received {source!r}, a folder that holds none of these. Name the file, "
            "or the folder that the model was exported to."
        )
    for spec in framework_specs().values():
        if source.endswith(spec.suffixes):
            return spec.name
    raise ModelError(f"model: expected {source_kinds()}; received {source!r}.")


def _framework_of_module(entry: str) -> FrameworkName:
    module = entry.partition(":")[0]
    file = locate_module(module)
    if file is None:
        raise ModelError(
            f"model: expected 'package.module:callable' or a file; there is no module {module!r} "
            f"in the working folder ({Path.cwd()}) or installed, and no such file. Run from the folder that holds it."
        )
    try:
        imported = _imported_names(ast.parse(file.read_bytes(), filename=file.name))
    except (SyntaxError, ValueError) as error:
        raise ModelError(f"model: {file} is not valid Python: {error}. Correct it and run again.") from error
    known = framework_specs().values()
    found = {spec.name: sorted(imported.intersection(spec.imports)) for spec in known if imported & set(spec.imports)}
    if len(found) == 1:
        return next(iter(found))
    names = [name for names in found.values() for name in names]
    told = f"both {' and '.join(names)}" if found else "neither torch nor keras"
    statements = " or ".join(f"`framework: {spec.name}`" for spec in known)
    raise ModelError(
        f"model: {module!r} imports {told}, so whose model {entry!r} is cannot be told from it; state {statements} "
        "in the recipe (or with --set framework=...)."
    )


def _imported_names(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names
