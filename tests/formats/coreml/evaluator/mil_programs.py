"""Small ML programs: built with coremltools' builder, saved, and run from the saved file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.formats.coreml.evaluator import Evaluator
from edgekit.formats.light_imports import import_coremltools

ct = import_coremltools()
from coremltools.converters.mil.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.mil import types  # noqa: E402

Array = np.ndarray
_IO = {"float32": types.fp32, "float16": types.fp16, "int32": types.int32}


def target(ios: int) -> Any:
    """The deployment target of an iOS version."""
    return getattr(ct.target, f"iOS{ios}")


@dataclass(frozen=True, eq=False)
class Case:
    """One operation with values for its tensors.

    Attributes:
        operation: Its name.
        tensors: Inputs that are computed at run time.
        settings: Constant parameters.
        expected: The outputs, or what computes them from the tensors; None: coremltools' own value inference.
        ios: The operation set.
        note: Tells cases of one operation apart.
    """

    operation: str
    tensors: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    expected: Any = None
    ios: int = 15
    note: str = ""
    atol: float = 2e-5

    def __str__(self) -> str:
        return f"{self.operation}-iOS{self.ios}{'-' + self.note if self.note else ''}"


def save(program: Any, ios: int, folder: Path | None = None, **options: Any) -> Path:
    """Write a program, none of its operations optimized away."""
    options.setdefault("pass_pipeline", ct.PassPipeline.EMPTY)
    options.setdefault("compute_precision", ct.precision.FLOAT32)
    model = ct.convert(
        program,
        source="milinternal",
        convert_to="mlprogram",
        minimum_deployment_target=target(ios),
        skip_model_load=True,
        **options,
    )
    path = (folder or Path(tempfile.mkdtemp(prefix="edgekit-mil-"))) / "model.mlpackage"
    model.save(str(path))
    return path


def program_of(build: Callable[..., Any], inputs: Mapping[str, Array], ios: int) -> Any:
    """Build a program whose inputs have the shapes and dtypes of arrays."""
    specs = [mb.TensorSpec(shape=array.shape, dtype=_IO[str(array.dtype)]) for array in inputs.values()]
    code = f"lambda {', '.join(inputs)}: build({', '.join(f'{name}={name}' for name in inputs)})"
    return mb.program(input_specs=specs, opset_version=target(ios))(eval(code, {"build": build}))


def run(build: Callable[..., Any], inputs: Mapping[str, Array], ios: int = 15, **options: Any) -> list[Array]:
    """Build, save and run a program; its outputs in order."""
    compute = options.pop("compute", "declared")
    found = Evaluator(save(program_of(build, inputs, ios), ios, **options), compute=compute).run(inputs)
    return list(found.values())


def _feedable(array: Array) -> Array:
    """What a package takes: booleans and narrow integers come in as int32."""
    array = np.atleast_1d(np.asarray(array))
    return array.astype(np.int32) if array.dtype.kind in "biu" else array.astype(np.float32)


def _restored(variable: Any, array: Array) -> Any:
    """In the program: back to the dtype and rank of the case."""
    array = np.asarray(array)
    if array.ndim == 0:
        variable = mb.squeeze(x=variable)
    names = {"bool": "bool", "int8": "int8", "uint8": "uint8", "int16": "int16", "uint16": "uint16"}
    return mb.cast(x=variable, dtype=names[str(array.dtype)]) if str(array.dtype) in names else variable


def _given(variable: Any) -> Any:
    """In the program: an output that a package can give."""
    if variable.dtype in (types.fp32, types.int32, types.fp16):
        return mb.identity(x=variable)
    return mb.cast(x=variable, dtype="fp32" if variable.dtype is types.bool else "int32")


@cache
def results_of(cases: tuple[Case, ...]) -> dict[Case, list[Array]]:
    """Run cases of one operation set in one program."""
    names: dict[str, Array] = {}
    for index, case in enumerate(cases):
        for parameter, array in case.tensors.items():
            for place, item in enumerate(array if isinstance(array, tuple) else (array,)):
                names[f"i{index}_{parameter}_{place}"] = _feedable(item)
    counts: list[int] = []

    def build(**variables: Any) -> tuple[Any, ...]:
        outputs: list[Any] = []
        for index, case in enumerate(cases):
            bound: dict[str, Any] = dict(case.settings)
            for parameter, array in case.tensors.items():
                items = array if isinstance(array, tuple) else (array,)
                found = [_restored(variables[f"i{index}_{parameter}_{i}"], item) for i, item in enumerate(items)]
                bound[parameter] = tuple(found) if isinstance(array, tuple) else found[0]
            made = getattr(mb, case.operation)(**bound)
            made = made if isinstance(made, (tuple, list)) else [made]
            counts.append(len(made))
            outputs += [_given(item) for item in made]
        return tuple(outputs)

    flat = run(build, names, cases[0].ios)
    counts = counts[: len(cases)]
    results, start = {}, 0
    for case, count in zip(cases, counts, strict=True):
        results[case] = flat[start : start + count]
        start += count
    return results


def found(case: Case, cases: Sequence[Case]) -> list[Array]:
    """What the evaluator gives for a case, run together with those of the same operation set."""
    return results_of(tuple(other for other in cases if other.ios == case.ios))[case]


def expected(case: Case) -> list[Array]:
    """What an independent reference gives."""
    if case.expected is None:
        return _inferred(case)
    value = case.expected(**case.tensors) if callable(case.expected) else case.expected
    return [np.asarray(item) for item in (value if isinstance(value, tuple) else (value,))]


def _inferred(case: Case) -> list[Array]:
    """coremltools' value inference: the operation built on constants."""
    values: list[Array] = []

    @mb.program(input_specs=[mb.TensorSpec(shape=(1,))], opset_version=target(case.ios))
    def infer(x: Any) -> Any:
        tensors = {name: np.array(array) for name, array in case.tensors.items()}  # some inferences write into them
        made = getattr(mb, case.operation)(**tensors, **case.settings)
        values.extend(np.asarray(item.val) for item in (made if isinstance(made, (tuple, list)) else [made]))
        return mb.identity(x=x)

    del infer
    return values


def check(case: Case, cases: Sequence[Case]) -> None:
    """Compare shape and values."""
    received, wanted = found(case, cases), expected(case)
    assert len(received) == len(wanted)
    for one, other in zip(received, wanted, strict=True):
        assert other.dtype != object, "coremltools infers no value: name a reference"
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other.astype(one.dtype), rtol=1e-5, atol=case.atol)
