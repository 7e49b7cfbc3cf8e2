"""A program that was read from a ``.tflite`` file: that file is the artifact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_tflite import write_tflite

from edgekit.errors import ArtifactError, ToolError, UnsupportedError
from edgekit.formats.tflite import dynamic_batch
from edgekit.formats.tflite.export import export
from edgekit.formats.tflite.session import open_session
from edgekit.records import ExportRequest, Program, TensorSpec

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4) / 10


@pytest.fixture
def request_(tmp_path: Path) -> ExportRequest:
    program = Program(
        path=tmp_path / "never-read.pt2",
        precision="fp32",
        dynamic_batch=False,
        inputs=(TensorSpec(name="x", dtype="float32", shape=(1, 4)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(1, 3)),),
        reference=tmp_path / "reference.npz",
        calibration=None,
        output_steps=(None,),
        origin=write_tflite(tmp_path / "origin.tflite", WEIGHTS),
    )
    return ExportRequest(
        program=program, format="tflite", precision="fp32", output=tmp_path / "a" / "m.tflite", work_dir=tmp_path / "w"
    )


def _with_program(request: ExportRequest, **changes: object) -> ExportRequest:
    return replace(request, program=replace(request.program, **changes))  # type: ignore[arg-type]


def test_file_is_published_byte_for_byte_when_the_program_was_read_from_it(request_: ExportRequest) -> None:
    result = export(request_)
    assert request_.program.origin is not None
    assert request_.output.read_bytes() == request_.program.origin.read_bytes()
    assert result.notes == ("the file that the source's own converter wrote, unchanged",)


def test_file_is_published_when_its_converter_named_the_tensors_otherwise(request_: ExportRequest) -> None:
    export(_with_program(request_, inputs=(TensorSpec(name="image", dtype="float32", shape=(1, 4)),)))
    assert request_.output.is_file()


def test_another_precision_is_refused_when_the_file_holds_one(request_: ExportRequest) -> None:
    with pytest.raises(UnsupportedError, match=r"int16x8.*at fp32.*Instead: precision: fp32"):
        export(replace(request_, precision="int16x8"))
    assert not request_.output.exists()


@pytest.mark.parametrize(
    "inputs",
    [
        (TensorSpec(name="x", dtype="float32", shape=(1, 5)),),
        (TensorSpec(name="x", dtype="float32", shape=(1, 4, 1)),),
        (TensorSpec(name="x", dtype="float32", shape=(1, 4)), TensorSpec(name="z", dtype="float32", shape=(1, 4))),
    ],
)
def test_file_of_another_interface_is_a_failed_tool(request_: ExportRequest, inputs: tuple[TensorSpec, ...]) -> None:
    with pytest.raises(ToolError, match=r"the inputs of the source's own .* received x \[1, 4\]"):
        export(_with_program(request_, inputs=inputs))
    assert not request_.output.exists()


def test_file_with_outputs_in_another_order_is_a_failed_tool(request_: ExportRequest) -> None:
    from edgekit.program.tflite import flatbuffer

    path = request_.work_dir.parent / "two.tflite"
    model = flatbuffer.read_model(write_tflite(path, np.eye(4, dtype=np.float32)))
    model.subgraphs[0].outputs = [2, 0]
    flatbuffer.write_model(model, path)
    outputs = tuple(TensorSpec(name=name, dtype="float32", shape=(1, 4)) for name in ("x", "y"))
    with pytest.raises(ToolError, match=r"expected x \[1, 4\], y \[1, 4\], received y \[1, 4\], x \[1, 4\]"):
        export(_with_program(request_, outputs=outputs, origin=path))


def test_damaged_file_is_refused_before_it_is_published(request_: ExportRequest) -> None:
    origin = request_.program.origin
    assert origin is not None
    origin.write_bytes(origin.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="truncated or damaged"):
        export(request_)
    assert not request_.output.exists()


def test_batch_is_freed_when_the_file_fixes_it(request_: ExportRequest) -> None:
    result = export(replace(request_, dynamic_batch=True))
    assert result.notes == ("the file that the source's own converter wrote, with its batch freed",)
    samples = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    with open_session(request_.output, 1) as session:
        (found,) = session.run([samples])
    np.testing.assert_allclose(found, samples @ WEIGHTS.T, rtol=1e-5)


def test_file_is_unchanged_when_its_batch_is_free_already(request_: ExportRequest, tmp_path: Path) -> None:
    assert request_.program.origin is not None
    free = tmp_path / "free.tflite"
    free.write_bytes(dynamic_batch.free_batch(request_.program.origin.read_bytes(), tmp_path))
    result = export(replace(_with_program(request_, origin=free), dynamic_batch=True))
    assert "its batch is free" in result.notes[0]
    assert request_.output.read_bytes() == free.read_bytes()
