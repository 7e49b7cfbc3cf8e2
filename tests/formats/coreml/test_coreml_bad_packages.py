"""Packages that nobody should trust: whatever is in them, reading ends in a result or in an error of ours."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.errors import ArtifactError, EdgekitError, UnsupportedError
from edgekit.records import TensorSpec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # coremltools warns about versions while it is imported
    from coremltools.proto import Model_pb2
    from formats.coreml.evaluator.mil_programs import ct, mb, program_of, save

    from edgekit.formats.coreml.evaluator import Evaluator
    from edgekit.formats.coreml.inspect import UNKNOWN, inspect
    from edgekit.formats.coreml.package import MODEL, WEIGHTS, read_package
    from edgekit.formats.coreml.session import feed

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

MANIFEST = Path("Manifest.json")
FILES = (MODEL, WEIGHTS, MANIFEST)
INPUTS = {"x": np.zeros((1, 3, 8, 8), np.float32)}
FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
)
CUTS = st.tuples(st.floats(0, 1), st.sampled_from([0, 0, 1, 2, 8]), st.binary(max_size=8))
"""Where in a file, how many bytes are dropped there, what is put in."""
WORDS = ["", "x", "conv", "const", "cond", "while_loop", "../x", "CoreML5", "constexpr_lut_to_dense", "main"]
NUMBERS = [0, 1, 2, 3, 7, 64, 65, 2**31 - 1, 2**63 - 1, 2**64 - 1]


@cache
def _sound() -> Path:
    """A package with convolutions, a palette, a branch, and constants in both places."""
    draw = np.random.default_rng(0)

    def build(x):
        y = mb.relu(x=mb.conv(x=x, weight=draw.normal(size=(4, 3, 3, 3)).astype(np.float32), pad_type="same"))
        y = mb.reshape(x=mb.max_pool(x=y, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid"), shape=[1, 64])
        y = mb.linear(x=y, weight=draw.normal(size=(8, 64)).astype(np.float32), bias=np.zeros(8, np.float32))
        below = mb.squeeze(x=mb.less(x=mb.reduce_sum(x=y, axes=[-1], keep_dims=False), y=0.5))
        y = mb.cond(pred=below, _true_fn=lambda: mb.mul(x=y, y=2.0), _false_fn=lambda: mb.softmax(x=y, axis=-1))
        return mb.concat(values=[y, mb.slice_by_index(x=y, begin=[0, 0], end=[1, 4])], axis=1)

    folder = Path(mkdtemp(prefix="edgekit-sound-"))
    path = save(program_of(build, INPUTS, 18), 18, folder)
    optimize = ct.optimize.coreml
    palette = optimize.OpPalettizerConfig(nbits=4, mode="uniform", weight_threshold=0)
    model = ct.models.MLModel(str(path), skip_model_load=True)
    model = optimize.palettize_weights(model, optimize.OptimizationConfig(op_type_configs={"linear": palette}))
    model.save(str(folder / "sound.mlpackage"))
    return folder / "sound.mlpackage"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A sound package, to be spoiled."""
    return Path(shutil.copytree(_sound(), tmp_path / "in" / "model.mlpackage"))


@cache
def _scratch() -> Path:
    return Path(shutil.copytree(_sound(), Path(mkdtemp(prefix="edgekit-spoiled-")) / "model.mlpackage"))


def _read(path: Path) -> None:
    for attempt in (lambda: Evaluator(path).run(INPUTS), lambda: inspect(path)):
        with suppress(EdgekitError):  # anything else fails the test
            attempt()


def test_sound_package_is_read_and_run() -> None:
    (found,) = Evaluator(_sound()).run(INPUTS).values()
    assert found.shape == (1, 12) and len(inspect(_sound()).operators) > 8


@FUZZ
@given(
    name=st.sampled_from(FILES),
    cuts=st.lists(CUTS, min_size=1, max_size=4),
    keep=st.sampled_from([1.0, 1.0, 1.0, 0.99, 0.7, 0.1, 0.0]),
)
def test_spoiled_bytes_end_in_an_error_of_ours(name: Path, cuts: list[tuple[float, int, bytes]], keep: float) -> None:
    for file in FILES:
        (_scratch() / file).write_bytes((_sound() / file).read_bytes())
    data = (_sound() / name).read_bytes()
    for place, drop, put in cuts:
        start = int(place * len(data))
        data = data[:start] + put + data[start + drop :]
    (_scratch() / name).write_bytes(data[: int(keep * len(data))])
    _read(_scratch())


def _fields(message: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every set field of a message and of those inside it."""
    for field, value in message.ListFields():
        yield message, field
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = value.values() if field.message_type.fields_by_name["value"].message_type else ()
        else:
            inner = value if field.is_repeated else (value,)
        for item in inner:
            yield from _fields(item)


def _spoil(draw: Any, message: Any, field: Any) -> None:
    """Drop, double or replace what a field holds."""
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        del value[draw(st.sampled_from(sorted(value)))]
    elif field.is_repeated:
        place = draw(st.integers(0, len(value) - 1))
        if field.message_type is None or draw(st.booleans()):
            del value[place]
        else:
            value.add().CopyFrom(value[place])
    elif field.message_type is not None:
        message.ClearField(field.name)
    else:
        with suppress(TypeError, ValueError):  # a word for a number, a number that is too large
            setattr(message, field.name, draw(st.sampled_from([*WORDS, *NUMBERS])))


@FUZZ
@given(data=st.data())
def test_spoiled_structure_ends_in_an_error_of_ours(data: st.DataObject) -> None:
    for file in FILES:
        (_scratch() / file).write_bytes((_sound() / file).read_bytes())
    specification = Model_pb2.Model.FromString((_sound() / MODEL).read_bytes())
    for _ in range(data.draw(st.integers(1, 2))):
        fields = list(_fields(specification))
        _spoil(data.draw, *fields[data.draw(st.integers(0, len(fields) - 1))])
    (_scratch() / MODEL).write_bytes(specification.SerializeToString())
    _read(_scratch())


# Paths that lead out of the package.


def _renamed(package: Path, target: str) -> None:
    document = json.loads((package / MANIFEST).read_text())
    document["itemInfoEntries"][document["rootModelIdentifier"]]["path"] = target
    (package / MANIFEST).write_text(json.dumps(document))


def _out_by_dots(package: Path, outside: Path) -> None:
    _renamed(package, "../../../outside/model.mlmodel")


def _out_by_absolute_path(package: Path, outside: Path) -> None:
    _renamed(package, str(outside / "model.mlmodel"))


def _link_model(package: Path, outside: Path) -> None:
    (package / MODEL).unlink()
    (package / MODEL).symlink_to(outside / "model.mlmodel")


def _link_weights(package: Path, outside: Path) -> None:
    (package / WEIGHTS).unlink()
    (package / WEIGHTS).symlink_to(outside / "weight.bin")


def _link_weights_folder(package: Path, outside: Path) -> None:
    shutil.rmtree((package / WEIGHTS).parent)
    (package / WEIGHTS).parent.symlink_to(outside)


def _link_manifest(package: Path, outside: Path) -> None:
    (package / MANIFEST).rename(outside / "Manifest.json")
    (package / MANIFEST).symlink_to(outside / "Manifest.json")


@pytest.mark.parametrize(
    "lead_out",
    [_out_by_dots, _out_by_absolute_path, _link_model, _link_weights, _link_weights_folder, _link_manifest],
)
def test_file_outside_the_package_is_not_read(
    lead_out: Callable[[Path, Path], None], package: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(package / MODEL, outside / "model.mlmodel")
    shutil.copy(package / WEIGHTS, outside / "weight.bin")
    lead_out(package, outside)
    for read in (Evaluator, inspect):
        with pytest.raises(ArtifactError, match=r"inside the package .* outside it"):
            read(package)


def test_pipe_in_place_of_a_file_is_refused_at_once(package: Path) -> None:
    (package / MODEL).unlink()
    os.mkfifo(package / MODEL)
    with pytest.raises(ArtifactError, match="expected a file"):
        read_package(package)


@pytest.mark.parametrize("text", ["", "[]", '{"rootModelIdentifier": []}', "[" * 100_000, '{"itemInfoEntries": {}}'])
def test_manifest_that_names_no_model_is_refused(text: str, package: Path) -> None:
    (package / MANIFEST).write_text(text)
    with pytest.raises(ArtifactError, match="expected a manifest that names the model"):
        read_package(package)


# Single faults, each with what the message must say.


def _edit(package: Path, change: Callable[[Any, Any], None]) -> None:
    specification = read_package(package)
    main = specification.mlProgram.functions["main"]
    change(specification, main.block_specializations[main.opset])
    (package / MODEL).write_bytes(specification.SerializeToString())


def _of(block: Any, kind: str) -> Any:
    return next(operation for operation in block.operations if operation.type == kind)


def _newer(specification: Any, block: Any) -> None:
    specification.specificationVersion = 99


def _no_main(specification: Any, block: Any) -> None:
    del specification.mlProgram.functions["main"]


def _constant_without_result(specification: Any, block: Any) -> None:
    del _of(block, "const").outputs[:]


def _far_offset(specification: Any, block: Any) -> None:
    for operation in block.operations:
        if operation.attributes["val"].HasField("blobFileValue"):
            operation.attributes["val"].blobFileValue.offset = 2**64 - 64


def _words_for_numbers(specification: Any, block: Any) -> None:
    tensor = next(
        operation.attributes["val"].immediateValue.tensor
        for operation in block.operations
        if operation.attributes["val"].immediateValue.tensor.HasField("ints")
    )
    tensor.strings.values.append("seven")


def _table_too_small(specification: Any, block: Any) -> None:
    found = _of(block, "constexpr_lut_to_dense")
    found.inputs["lut"].CopyFrom(found.inputs["indices"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (_newer, UnsupportedError, "specification 99.*newer than the newest that is known here"),
        (_no_main, ArtifactError, "expected a function 'main'"),
        (_constant_without_result, ArtifactError, "expected a result of each constant"),
        (_far_offset, ArtifactError, "has no constant at byte 18446744073709551552"),
        (_words_for_numbers, ArtifactError, "received words"),
        (_table_too_small, ArtifactError, r"constexpr_lut_to_dense.*cannot be carried out"),
    ],
)
def test_single_fault_is_named(change, error: type[Exception], message: str, package: Path) -> None:
    _edit(package, change)
    with pytest.raises(error, match=message):
        Evaluator(package)


@pytest.mark.parametrize(("depth", "message"), [(40, "nested more than 32 deep"), (60, "truncated or damaged")])
def test_blocks_nested_absurdly_deep_are_refused(depth: int, message: str, package: Path) -> None:
    def nest(specification: Any, block: Any) -> None:
        inner = _of(block, "cond")
        for _ in range(depth):
            outer = type(inner)()
            outer.CopyFrom(inner)
            del outer.blocks[0].operations[:]
            outer.blocks[0].operations.add().CopyFrom(inner)
            inner = outer
        _of(block, "cond").CopyFrom(inner)

    _edit(package, nest)
    with pytest.raises(ArtifactError, match=message):
        Evaluator(package)


def test_image_input_is_refused_with_the_way_out() -> None:
    with pytest.raises(UnsupportedError, match=r"feeding the input photo.*TensorType"):
        feed([TensorSpec(name="photo", dtype=UNKNOWN, shape=())], [np.zeros(1)])
