"""Names for the code that a guest executed, and the functions at which a runtime's operators begin."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ArtifactError, UnsupportedError
from edgekit.store.atomic import digest_path, write_bytes
from edgekit.store.cache import cache_root
from edgekit.targets.emulated.counts import Counts, Module
from edgekit.targets.emulated.guest import Watch
from edgekit.targets.emulated.twins import Functions, Library, name_functions, read_library

_ALGORITHM: Final = "1"
"""Part of the cache's key: raise it whenever the same files would get other names."""
_TWINS: Final[Mapping[str, str]] = {
    # the wheel's second library is built from the same objects, and keeps its symbols
    "libLiteRt.so": "libpywrap_litert_common.so",
    # other compiler, so only the kernels written in assembly are the same code
    "libexecutorch_backend_xnnpack.so": "libpywrap_litert_common.so",
}

NODE_ENDS: Final = "tflite::Subgraph::MaybeReleaseDynamicTensors"
"""LiteRT calls it once after each node of the graph."""
INSTRUCTION_BEGINS: Final = "executorch::runtime::Method::execute_instruction"
"""ExecuTorch calls it once for each instruction of the program."""
OPERATOR_BEGINS: Final = "xnn_run_operator_with_index"
"""XNNPACK calls it once for each of its operators."""
_MANGLED: Final[Mapping[str, str]] = {
    NODE_ENDS: "_ZN6tflite8Subgraph26MaybeReleaseDynamicTensorsERK10TfLiteNodem",
    INSTRUCTION_BEGINS: "_ZN10executorch7runtime6Method19execute_instructionEv",
}


@dataclass(frozen=True, eq=False, slots=True)
class Symbols:
    """The function of each block of a run. F functions, B blocks.

    Attributes:
        names: Of each function: as people write it, or ``libfoo.so+0x1234`` where nobody knows.
        known: ``bool[F]``: whether the name is a real one.
        modules: ``i64[F]``: module of each function; -1: outside every file.
        block_functions: ``i64[B]``: the function that holds each block.
    """

    names: tuple[str, ...]
    known: NDArray[np.bool_]
    modules: NDArray[np.int64]
    block_functions: NDArray[np.int64]

    def instructions(self, counts: Counts) -> NDArray[np.uint64]:
        """``u64[F]``: instructions that each function executed."""
        totals = np.zeros(len(self.names), dtype=np.uint64)
        np.add.at(totals, self.block_functions, counts.block_counts * counts.lengths)
        return totals

    def named_share(self, counts: Counts) -> float:
        """Return the share of executed instructions whose function has a name."""
        executed = self.instructions(counts)
        total = int(executed.sum())
        return int(executed[self.known].sum()) / total if total else 1.0


def read_symbols(counts: Counts, *, twin_folders: Sequence[Path] = ()) -> Symbols:
    """Find the function of each executed block.

    Args:
        counts: What was executed.
        twin_folders: Where twins of stripped libraries are looked for, besides the library's own folder.

    Raises:
        MissingToolError: pyelftools is not installed.
        OutputError: The cache folder cannot be written.
    """
    names: list[str] = []
    known: list[bool] = []
    modules: list[int] = []
    block_functions = np.zeros(len(counts.addresses), dtype=np.int64)
    for index in range(-1, len(counts.modules)):
        blocks = np.flatnonzero(counts.block_modules == index)
        if not len(blocks):
            continue
        module = counts.modules[index] if index >= 0 else Module(path="", base=0, end=0)
        offsets = counts.addresses[blocks] - np.uint64(module.base)
        found, own_names, own_known = _name_blocks(module, offsets, twin_folders)
        block_functions[blocks] = found + len(names)
        names += own_names
        known += own_known
        modules += [index] * len(own_names)
    return Symbols(
        names=tuple(names),
        known=np.array(known, dtype=np.bool_),
        modules=np.array(modules, dtype=np.int64),
        block_functions=block_functions,
    )


def library_functions(path: Path, *, twin: Path | None = None) -> Functions:
    """Return the functions of a library; kept in the cache folder by the digests of both files.

    Raises:
        ArtifactError: A file is no aarch64 ELF file.
        MissingToolError: pyelftools is not installed.
        OutputError: The cache folder cannot be written.
    """
    digests = [_ALGORITHM, digest_path(path), digest_path(twin) if twin is not None else ""]
    key = hashlib.sha256("\n".join(digests).encode()).hexdigest()[:32]
    kept = cache_root() / "emulated" / "symbols" / f"{key}.npz"
    if kept.is_file():
        return _load_functions(kept)
    functions = name_functions(read_library(path), read_library(twin) if twin is not None else None)
    content = io.BytesIO()
    names = np.frombuffer("\n".join(functions.names).encode(), dtype=np.uint8)
    np.savez_compressed(content, starts=functions.starts, ends=functions.ends, names=names)
    write_bytes(kept, content.getvalue())
    return functions


def find_twin(library: Path, folders: Sequence[Path] = ()) -> Path | None:
    """Return the file that has the names which a stripped library lacks; None: there is none."""
    name = _TWINS.get(library.name)
    for folder in (library.parent, *folders):
        if name is not None and (folder / name).is_file():
            return folder / name
    return None


def operator_watches(runtime: str, folders: Sequence[Path], *, twin_folders: Sequence[Path] = ()) -> tuple[Watch, ...]:
    """Return the functions of a runtime at whose calls its operators begin or end.

    Args:
        runtime: ``litert``, ``executorch`` or ``onnxruntime``; the last has none, its profiler's system calls tell its
            nodes apart.
        folders: With the runtime's libraries.
        twin_folders: Where twins are looked for, besides.

    Raises:
        UnsupportedError: A function is not found in this version of the library.
        ArtifactError: A library is missing or damaged.
    """
    if runtime == "litert":
        library = _find_library("libLiteRt.so", folders)
        functions = library_functions(library, twin=find_twin(library, twin_folders))
        return tuple(_watch(library, functions, name) for name in (OPERATOR_BEGINS, NODE_ENDS))
    if runtime == "executorch":
        core = _find_library("libexecutorch.so", folders)
        backend = _find_library("libexecutorch_backend_xnnpack.so", folders)
        run_operator = _watch(backend, library_functions(backend), "xnn_run_operator")
        inner = Watch(library=backend, offset=_jump_target(backend, run_operator.offset), name=OPERATOR_BEGINS)
        return (inner, _watch(core, library_functions(core), INSTRUCTION_BEGINS))
    return ()


def _find_library(name: str, folders: Sequence[Path]) -> Path:
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise ArtifactError(f"expected {name} in {', '.join(map(str, folders)) or 'a folder'}; it is not there")


def _watch(library: Path, functions: Functions, name: str) -> Watch:
    wanted = _MANGLED.get(name, name)
    for start, found in zip(functions.starts.tolist(), functions.names, strict=True):
        if found == wanted:
            return Watch(library=library, offset=start, name=name)
    raise UnsupportedError(
        f"telling the operators of {library.name} apart",
        reason=f"its function {name} was not found, by its symbols or those of {_TWINS.get(library.name, 'a twin')}",
        instead="the version of the runtime that edgekit pins",
    )


def _jump_target(library: Path, offset: int) -> int:
    """Return where a short function ends in a jump: the exported one only fills in arguments of the one behind it."""
    code: Library = read_library(library)
    first = (offset - code.start) // 4
    words: list[int] = code.words[first : first + 8].tolist()
    for place, word in enumerate(words):
        if word & 0xFC000000 == 0x14000000:
            distance = (word & 0x3FFFFFF) - ((word & 0x2000000) << 1)
            return offset + 4 * (place + distance)
    return offset  # it does the work itself


def _name_blocks(
    module: Module, offsets: NDArray[np.uint64], twin_folders: Sequence[Path]
) -> tuple[NDArray[np.int64], list[str], list[bool]]:
    """Return for each block the place of its function in the two lists: names, and whether they are real."""
    functions = _functions_of(module, twin_folders)
    places = functions.find(offsets) if functions is not None else np.full(len(offsets), -1, dtype=np.int64)
    # code in no function: each block is its own, named by its offset; keys keep functions first, in order of address
    keys = np.where(places >= 0, places, offsets.astype(np.int64) + (1 << 40))
    kinds, found = np.unique(keys, return_inverse=True)
    names, known = [], []
    for kind in kinds.tolist():
        if functions is not None and kind < 1 << 40:
            mangled = functions.names[kind]
            known.append(bool(mangled))
            names.append(demangle(mangled) if mangled else _by_offset(module, int(functions.starts[kind])))
        else:
            known.append(False)
            names.append(_by_offset(module, kind - (1 << 40)))
    return found.astype(np.int64).reshape(-1), names, known


def _functions_of(module: Module, twin_folders: Sequence[Path]) -> Functions | None:
    path = Path(module.path)
    if not module.path or not path.is_file():
        return None
    try:
        return library_functions(path, twin=find_twin(path, twin_folders))
    except ArtifactError:  # not an ELF file after all: its code keeps offsets for names
        return None


def _by_offset(module: Module, offset: int) -> str:
    return f"{module.name or 'code outside every file'}+{offset:#x}"


def _load_functions(path: Path) -> Functions:
    with np.load(path, allow_pickle=False) as kept:
        names = bytes(kept["names"]).decode().split("\n")
        return Functions(starts=kept["starts"], ends=kept["ends"], names=tuple(names))


@cache
def demangle(name: str) -> str:
    """Return a C++ name as people write it, without arguments; any other name as it is.

    Example:
        >>> demangle("_ZN6tflite8Subgraph6InvokeEv")
        'tflite::Subgraph::Invoke'
    """
    if not name.startswith("_Z"):
        return name
    demangler = _demangler()
    if demangler is None:  # no C++ library on this machine: the linker's name is a name too
        return name
    return _without_arguments(demangler(name))


@cache
def _demangler() -> Callable[[str], str] | None:
    found = ctypes.util.find_library("stdc++") or "libstdc++.so.6"
    try:
        function = ctypes.CDLL(found).__cxa_demangle
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_void_p
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]

    def demangled(name: str) -> str:
        status = ctypes.c_int(0)
        answer = function(name.encode(), None, None, ctypes.byref(status))
        if status.value != 0 or not answer:
            return name
        try:
            return ctypes.string_at(answer).decode("utf-8", "replace")
        finally:
            free(answer)

    return demangled


def _without_arguments(name: str) -> str:
    """Cut the argument list: the last parenthesis that is open to the end, but not ``(anonymous namespace)``."""
    text = name.replace("(anonymous namespace)", "{anonymous}").replace("operator()", "operator{}")
    depth = 0
    for place, character in enumerate(text):
        if character == "(" and depth == 0 and place > 0:
            text = text[:place]
            break
        depth += (character == "<") - (character == ">")
    return text.replace("{anonymous}", "(anonymous namespace)").replace("operator{}", "operator()")
