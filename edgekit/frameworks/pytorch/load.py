"""Load a source model: a Python callable, an exported program, an ONNX file, or a state dict with its builder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgekit.errors import ModelError
from edgekit.frameworks.callables import builder_of, call_builder
from edgekit.frameworks.pytorch.onnx_source import load_onnx
from edgekit.frameworks.pytorch.weights_file import read_weights
from edgekit.program.serialize import load_program
from edgekit.recipe.schema import ModelSection

STATE_DICT_SUFFIXES = (".pt", ".pth", ".safetensors")
FILE_SUFFIXES = (".pt2", ".onnx", *STATE_DICT_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Source:
    """A source model in memory.

    Attributes:
        module: In evaluation mode, on the CPU.
        example_inputs: What the source itself gives as an example, batch in axis 0; empty where it gives none.
    """

    module: nn.Module
    example_inputs: tuple[Tensor, ...] = ()


def load_module(section: ModelSection, *, weights: Path | None = None) -> nn.Module:
    """Load the module alone; see :func:`load_source`."""
    return load_source(section, weights=weights).module


def load_source(section: ModelSection, *, weights: Path | None = None) -> Source:
    """Load what the model section of a recipe names.

    Args:
        section: Source, builder, weights, arguments, trust.
        weights: A state dict that replaces the section's own weights (trained weights, usually).

    Raises:
        ModelError: A file, module or callable is missing, broken or of the wrong kind, or weights do not fit.
        UntrustedCodeError: A file would execute code and ``trust`` is not set.
    """
    source = _load(section)
    for path in (section.weights, weights):
        if path is not None:
            load_weights(source.module, Path(path), trust=section.trust)
    source.module.eval()
    return source


def _load(section: ModelSection) -> Source:
    text = section.source
    if ":" in text and Path(text).suffix not in FILE_SUFFIXES:
        return _build(text, section.args, "model.source")
    path = Path(text)
    if not path.is_file():
        raise ModelError(
            f"model.source: there is no file {text!r}. Expected package.module:callable, or a path to a .pt2, .onnx, "
            ".pt, .pth or .safetensors file"
        )
    if path.suffix == ".pt2":
        return _from_program(path, trust=section.trust)
    if path.suffix == ".onnx":
        return Source(*load_onnx(path))
    if path.suffix in STATE_DICT_SUFFIXES:
        return _from_state_dict(path, section)
    raise ModelError(
        f"model.source: expected a .pt2, .onnx, .pt, .pth or .safetensors file; received {text!r}. "
        "Code is written as package.module:callable"
    )


def _from_program(path: Path, *, trust: bool) -> Source:
    program = load_program(path, trust=trust)
    module = program.module(check_guards=False)
    # An exported graph recorded one mode of its dropout and batch-norm layers; there is no other to switch to.
    module.train = lambda mode=True: module  # type: ignore[method-assign] # noqa: ARG005
    module.eval = lambda: module  # type: ignore[method-assign]
    inputs, keywords = program.example_inputs or ((), {})
    tensors = tuple(value for value in (*inputs, *keywords.values()) if isinstance(value, Tensor))
    return Source(module, tensors)


def _from_state_dict(path: Path, section: ModelSection) -> Source:
    source = _build(builder_of(section, path), section.args, "model.builder")
    load_weights(source.module, path, trust=section.trust)
    return source


def _build(text: str, arguments: Mapping[str, Any], place: str) -> Source:
    module, example = call_builder(text, arguments, place)
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"{place}: expected {text} to return a torch.nn.Module, or a module and its example inputs; "
            f"received {type(module).__name__}"
        )
    example = (example,) if isinstance(example, Tensor) else tuple(example)
    return Source(module, example)


def load_weights(module: nn.Module, path: Path, *, trust: bool = False) -> None:
    """Load a state dict into a module; every key and shape must fit.

    Raises:
        ModelError: The file is missing, broken or holds other weights.
        UntrustedCodeError: Reading it would execute code and ``trust`` is not set.
    """
    found = read_weights(path, trust=trust)
    expected = module.state_dict()
    problems = _listed("missing from the file", expected.keys() - found.keys())
    problems += _listed("unknown to the model", found.keys() - expected.keys())
    for name in sorted(expected.keys() & found.keys()):
        if expected[name].shape != found[name].shape:
            problems.append(f"{name} has shape {list(found[name].shape)}, the model needs {list(expected[name].shape)}")
    if problems:
        raise ModelError(f"the weights in {str(path)!r} do not fit the model: {'; '.join(problems[:6])}")
    module.load_state_dict({name: found[name] for name in expected})


def _listed(what: str, names: set[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return [f"{what}: {shown}"]
