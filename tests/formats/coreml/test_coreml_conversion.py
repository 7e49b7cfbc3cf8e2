"""What coremltools gets wrong or refuses, and the ways round: the written program says what the model says."""

from __future__ import annotations

import platform
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from contracts.tiny_artifacts import tiny_artifact
from contracts.tiny_programs import folded_integers, tiny_program
from torch import nn

from edgekit.errors import ArtifactError, UnsupportedError
from edgekit.program.decompositions import operations_of
from edgekit.program.serialize import load_program, save_program
from edgekit.records import ExportRequest, Program, TensorSpec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # coremltools warns about versions while it is imported
    from edgekit.formats.coreml.export import export, scales_fit_float16
    from edgekit.formats.coreml.inspect import inspect
    from edgekit.formats.coreml.operators import read_type
    from edgekit.formats.coreml.package import MODEL, WEIGHTS, read_package
    from edgekit.formats.coreml.rewrite import MASKED, rewrite
    from edgekit.formats.coreml.session import open_session

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def _export(program: Program, folder: Path, precision="fp32", **options):
    folder.mkdir(exist_ok=True)
    request = ExportRequest(
        program=program,
        format="coreml",
        precision=precision,
        output=folder / "model.mlpackage",
        work_dir=folder,
        **options,
    )
    return request.output, export(request)


def _program(model: nn.Module, inputs: tuple[torch.Tensor, ...], folder: Path) -> Program:
    torch.set_num_threads(1)
    save_program(torch.export.export(model.eval(), inputs), folder / "program.pt2")
    specs = tuple(TensorSpec(name=f"in{i}", dtype=str(x.dtype)[6:], shape=tuple(x.shape)) for i, x in enumerate(inputs))
    outputs = (TensorSpec(name="out", dtype="float32", shape=tuple(model(*inputs).shape)),)
    return Program(
        path=folder / "program.pt2",
        precision="fp32",
        dynamic_batch=False,
        inputs=specs,
        outputs=outputs,
        reference=folder / "none.npz",
        calibration=None,
        output_steps=(None,),
    )


def _operations(path: Path, kind: str = ""):
    specification = read_package(path)
    function = specification.mlProgram.functions["main"]
    operations = function.block_specializations[function.opset].operations
    return [operation for operation in operations if operation.type.startswith(kind)]


class Padding(nn.Module):
    """How nn.TransformerEncoder turns a padding mask into scores."""

    def forward(self, scores, padded):
        additive = torch.zeros_like(padded, dtype=scores.dtype).masked_fill_(padded, float("-inf"))
        return (scores + additive).softmax(-1)


def test_padding_mask_stays_a_float_mask_with_finite_scores(tmp_path: Path) -> None:
    model, scores = Padding(), torch.randn(1, 4)
    padded = torch.tensor([[False, False, True, True]])
    path, result = _export(_program(model, (scores, padded), tmp_path), tmp_path / "out")
    (addition,) = _operations(path, "add")
    produced = {output.name: read_type(output.type).dtype for op in _operations(path) for output in op.outputs}
    summands = [produced.get(binding.name, "float32") for side in "xy" for binding in addition.inputs[side].arguments]
    assert summands == ["float32", "float32"]  # coremltools by itself makes the mask a bool: every position attends
    assert "boolean inputs are float32 (0 or 1)" in result.notes
    rewritten = rewrite(load_program(tmp_path / "program.pt2")).module()
    torch.testing.assert_close(rewritten(scores, padded), model(scores, padded))
    masked_whole = rewritten(scores, torch.ones_like(padded))
    assert torch.isfinite(masked_whole).all()


class Unread(nn.Module):
    """Operations that coremltools has no converter for, or reads with another dtype."""

    def forward(self, x):
        steps = torch.diff(x, dim=1)
        ones = x.new_ones((1, 3)) + torch.ones_like(steps, dtype=torch.float32) + torch.full_like(steps, 2.0)
        chosen = torch.where(steps > 0, steps, 0.5)
        return torch.ops.aten.alias(chosen * ones)


def test_operations_without_a_converter_are_written_in_others(tmp_path: Path) -> None:
    model, x = Unread(), torch.randn(1, 4)
    program = _program(model, (x,), tmp_path)
    _export(program, tmp_path / "out")
    rewritten = rewrite(load_program(program.path))
    left = {str(target).split(".")[1] for target in operations_of(rewritten) if str(target).startswith("aten")}
    assert not left & {"alias", "diff", "new_ones", "ones_like", "full_like", "clone"}
    torch.testing.assert_close(rewritten.module()(x), model(x))


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_recurrent_layer_is_unrolled(kind: str, tmp_path: Path) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = getattr(nn, kind)(4, 3, batch_first=True)

        def forward(self, x):
            return self.layer(x)[0][:, -1]

    path, result = _export(_program(Last(), (torch.randn(1, 5, 4),), tmp_path), tmp_path / "out")
    assert "recurrent layers are unrolled over 5 steps" in result.notes
    assert len(_operations(path, "tanh")) == (5 if kind == "GRU" else 10)


@pytest.mark.parametrize(("precision", "stored"), [("w8", "int8"), ("w4", "int4")])
def test_integer_weights_keep_their_width(precision, stored: str) -> None:
    path, _, _ = tiny_artifact("coreml", "cnn", precision)
    assert {operator.weight_dtype for operator in inspect(path).operators if operator.macs} == {stored}


def test_four_bit_weights_are_written_in_the_programs_shapes() -> None:
    path, program, _ = tiny_artifact("coreml", "cnn", "w4")
    data = [read_type(op.inputs["data"].arguments[0].value.type) for op in _operations(path, "constexpr_")]
    assert {found.dtype for found in data} == {"int4"}
    assert sorted(found.shape for found in data) == sorted(array.shape for array in folded_integers(program))


def test_int8_layers_between_quantized_values_count_as_integer() -> None:
    path, _, result = tiny_artifact("coreml", "cnn", "int8")
    computing = [operator for operator in inspect(path).operators if operator.macs]
    assert {operator.compute_dtype for operator in computing} == {"int8"}
    assert any("float16 between integer operations" in note for note in result.notes)


def test_scales_that_float16_cannot_hold_are_noticed() -> None:
    class Tiny(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale = scale

        def forward(self, x):
            ops = torch.ops.quantized_decomposed
            integers = ops.quantize_per_tensor(x, self.scale, 0, -128, 127, torch.int8)
            return ops.dequantize_per_tensor(integers, self.scale, 0, -128, 127, torch.int8)

    assert scales_fit_float16(torch.export.export(Tiny(0.0123), (torch.zeros(1, 2),)))
    assert not scales_fit_float16(torch.export.export(Tiny(3e-7), (torch.zeros(1, 2),)))


def test_outputs_are_float32_when_the_program_computes_in_float16() -> None:
    path, _, _ = tiny_artifact("coreml", "cnn", "fp16")
    found = inspect(path)
    assert {spec.dtype for spec in (*found.inputs, *found.outputs)} == {"float32"}
    assert {operator.compute_dtype for operator in found.operators if operator.macs} == {"float16"}


@pytest.mark.parametrize(("precision", "target", "needed"), [("int8", "iOS16", 17), ("w4", "iOS17", 18)])
def test_too_old_deployment_target_is_refused(precision, target: str, needed: int, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=f"from iOS{needed} on"):
        _export(tiny_program("cnn", precision), tmp_path / "out", precision, minimum_deployment_target=target)


def test_deployment_target_is_kept(tmp_path: Path) -> None:
    path, _ = _export(tiny_program("cnn", "fp32"), tmp_path / "out", "fp16", minimum_deployment_target="iOS15")
    assert inspect(path).metadata["minimum_deployment_target"] == "iOS15"


def test_package_holds_only_what_its_manifest_names_and_all_may_read_it() -> None:
    path, _, _ = tiny_artifact("coreml", "cnn", "int8")
    files = {file.relative_to(path) for file in path.rglob("*") if file.is_file()}
    assert files == {Path("Manifest.json"), MODEL, WEIGHTS}
    assert {(path / file).stat().st_mode & 0o444 for file in files} == {0o444}


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.mlpackage"
    shutil.copytree(tiny_artifact("coreml", "cnn", "fp32").path, path)
    data = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(data[:-8])
    with pytest.raises(ArtifactError, match="truncated"):
        inspect(path)
    (path / WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        inspect(path)


def test_session_is_the_reference_evaluator_where_core_ml_does_not_exist(tmp_path: Path) -> None:
    if platform.system() == "Darwin":
        pytest.skip("Core ML exists here")
    path, _ = _export(tiny_program("cnn", "fp32"), tmp_path / "out")
    with open_session(path, 1) as session:
        assert session.runtime.name == "Core ML reference evaluator"
        with pytest.raises(UnsupportedError, match="nothing of Core ML"):
            session.operator_times([], 1)


def test_constants_of_minus_infinity_become_finite() -> None:
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))

        def forward(self, x):
            return (x + self.mask).softmax(-1)

    rewritten = rewrite(torch.export.export(Causal(), (torch.zeros(1, 3, 3),)))
    values = [*rewritten.state_dict.values(), *rewritten.constants.values()]
    assert min(float(value.min()) for value in values) == MASKED
