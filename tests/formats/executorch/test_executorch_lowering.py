"""What ExecuTorch's lowering gets wrong or leaves out, and the ways round, each on the real runtime."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contracts.tiny_artifacts import tiny_artifact
from contracts.tiny_programs import tiny_program
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from edgekit.errors import ArtifactError, DataError, UnsupportedError
from edgekit.program.serialize import save_program
from edgekit.records import ExportRequest, Program, TensorSpec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # executorch and torch warn about themselves while they are imported
    from edgekit.formats.executorch.export import LONGEST_SEQUENCE, export
    from edgekit.formats.executorch.inspect import inspect
    from edgekit.formats.executorch.lowering import LARGEST_BATCH, XnnpackPartitioner, to_edge_transform_and_lower
    from edgekit.formats.executorch.session import open_session

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def _program(model: nn.Module, inputs: tuple[torch.Tensor, ...], folder: Path, **shapes: object) -> Program:
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    exported = torch.export.export(model.eval(), inputs, **shapes)
    save_program(exported, folder / "program.pt2")
    free = bool(shapes)
    specs = tuple(
        TensorSpec(name=f"in{i}", dtype=str(x.dtype)[6:], shape=(None if free else x.shape[0], *x.shape[1:]))
        for i, x in enumerate(inputs)
    )
    outputs = (TensorSpec(name="out", dtype="float32", shape=tuple(model(*inputs).shape)),)
    nowhere = folder / "none.npz"
    return Program(
        path=folder / "program.pt2", precision="fp32", dynamic_batch=free, inputs=specs, outputs=outputs,
        reference=nowhere, calibration=None, output_steps=(None,),
    )  # fmt: skip


def _lower(program: Program, folder: Path, precision="fp32", backend="xnnpack"):
    request = ExportRequest(
        program=program, format="executorch", precision=precision, backend=backend, output=folder / "model.pte",
        work_dir=folder,
    )  # fmt: skip
    return request.output, export(request)


def _error(path: Path, model: nn.Module, *inputs: torch.Tensor) -> float:
    with open_session(path, 1) as session, torch.no_grad():
        return float(np.abs(session.run([x.numpy() for x in inputs])[0] - model(*inputs).numpy()).max())


def _realistic(model: nn.Module, channels: int = 8) -> nn.Module:
    torch.manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model.eval()


class Colliding(nn.Module):
    """``a.1`` and ``a_1`` become the same name when dots become underscores."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Identity(), nn.Conv2d(8, 8, 1))
        self.b, self.c = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.a_1 = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.c(self.a_1(torch.relu(self.b(self.a(x)))))


class Shared(nn.Module):
    """One convolution, followed by two different batch normalizations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1, bias=False)
        self.left, self.right = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x):
        return self.left(self.conv(x)) - self.right(self.conv(x + 1.0))


@pytest.mark.parametrize("build", [Colliding, Shared])
def test_batch_norms_are_fused_into_their_own_weights_when_names_collide(build, tmp_path: Path) -> None:
    model, x = _realistic(build()), torch.randn(1, 8, 4, 4)
    path, _ = _lower(_program(model, (x,), tmp_path), tmp_path)
    assert _error(path, model, x) < 1e-4
    # without own names the same tools give wrong numbers; when this no longer fails, the way round can go
    plain = to_edge_transform_and_lower(torch.export.export(model, (x,)), partitioner=[XnnpackPartitioner()])
    (tmp_path / "plain.pte").write_bytes(plain.to_executorch().buffer)
    assert _error(tmp_path / "plain.pte", model, x) > 1e-2


class SelfAttention(nn.Module):
    def forward(self, x, mask):
        heads = x.unflatten(-1, (2, 4)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(heads, heads, heads, mask[:, None, None, :])
        return attended.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_attention_is_delegated_and_keeps_its_mask(precision, tmp_path: Path) -> None:
    model, x = SelfAttention(), torch.randn(2, 6, 8)
    mask = torch.tensor([[True] * 4 + [False] * 2, [False] * 6])  # the second sample is masked whole
    path, result = _lower(_program(model, (x, mask), tmp_path), tmp_path, precision)
    assert _error(path, model, x, mask) < (1e-5 if precision == "fp32" else 5e-3)
    left_out = {operator.type for operator in result.operators if not operator.delegated}
    assert not {kind for kind in left_out if kind.split("::")[1].split(".")[0] in ("where", "eq", "any", "logical_not")}
    assert all(operator.delegated for operator in result.operators if operator.macs)


class Recurrent(nn.Module):
    def __init__(self, kind: str = "LSTM") -> None:
        super().__init__()
        self.layer, self.head = getattr(nn, kind)(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_steps_lie_in_one_delegate(kind: str, tmp_path: Path) -> None:
    model, x = Recurrent(kind), torch.randn(1, 5, 4)
    path, result = _lower(_program(model, (x,), tmp_path), tmp_path)
    assert _error(path, model, x) < 1e-5
    assert inspect(path).partitions <= 2  # the layer, and the head behind the selection of the last step
    assert any("unrolled over 5 steps" in note for note in result.notes)


def test_long_sequence_is_refused_before_it_is_unrolled(tmp_path: Path) -> None:
    program = _program(Recurrent("GRU"), (torch.randn(1, LONGEST_SEQUENCE + 1, 4),), tmp_path)
    with pytest.raises(UnsupportedError, match="recurrent layer over 257 steps"):
        _lower(program, tmp_path)


class MeanOverTime(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LayerNorm(4)

    def forward(self, x):
        return self.inner(x).mean(1)


def test_operators_left_out_carry_the_partitioners_reason_and_their_layer(tmp_path: Path) -> None:
    _, result = _lower(_program(MeanOverTime(), (torch.randn(1, 3, 4),), tmp_path), tmp_path)
    reasons = {operator.name: operator.reason for operator in result.operators if not operator.delegated}
    assert "only supports averaging 4D tensors" in reasons["mean"]
    assert reasons["inner/native_layer_norm"] == "XNNPACK has no operation native_layer_norm"


def test_integer_weights_with_a_bias_run_in_xnnpack_when_activations_are_float(tmp_path: Path) -> None:
    program = tiny_program("attention", "w8")  # with the bias inside, the runtime dies of a segmentation fault
    path, result = _lower(program, tmp_path, "w8")
    products = [operator for operator in result.operators if operator.type == "XNNFullyConnected"]
    assert {operator.weight_dtype for operator in products} == {"int8"}
    with np.load(program.reference) as reference, open_session(path, 1) as session:
        found = session.run([reference["input_0"][:1], reference["input_1"][:1]])[0]
        np.testing.assert_allclose(found, reference["program_output_0"][:1], atol=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-dynamic"])
def test_portable_backend_agrees_with_program(precision, tmp_path: Path) -> None:
    program = tiny_program("cnn", "fp32" if precision == "fp16" else precision)
    path, result = _lower(program, tmp_path, precision, "portable")
    assert not any(operator.delegated for operator in result.operators)
    with np.load(program.reference) as reference, open_session(path, 1) as session:
        found = session.run([reference["input_0"][:1]])[0]
        np.testing.assert_allclose(found, reference["program_output_0"][:1], atol=2e-2)


def test_free_batch_without_a_bound_gets_one(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    shapes = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
    path, _ = _lower(_program(model, (torch.randn(2, 4),), tmp_path, **shapes), tmp_path)
    assert _error(path, model, torch.randn(5, 4)) < 1e-5
    with open_session(path, 1) as session, pytest.raises(DataError, match=f"batches up to {LARGEST_BATCH}"):
        session.run([np.zeros((LARGEST_BATCH + 1, 4), np.float32)])


def test_file_of_another_tool_is_inspected_with_numbered_names(tmp_path: Path) -> None:
    lowered = to_edge_transform_and_lower(
        torch.export.export(nn.Linear(4, 2), (torch.randn(1, 4),)), partitioner=[XnnpackPartitioner()]
    )
    path = tmp_path / "other.pte"
    path.write_bytes(lowered.to_executorch().buffer)
    found = inspect(path)
    assert [spec.name for spec in (*found.inputs, *found.outputs)] == ["input_0", "output_0"]
    assert [(operator.type, operator.macs) for operator in found.operators] == [("XNNFullyConnected", 8)]


def test_core_ml_delegate_is_converted_and_refused_at_run_time(tmp_path: Path) -> None:
    path, result = _lower(tiny_program("cnn", "fp32"), tmp_path, "fp32", "coreml")
    assert [operator.type for operator in result.operators] == ["CoreMLBackend"]
    with pytest.raises(UnsupportedError, match="CoreMLBackend"):
        open_session(path, 1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_damaged_file_is_inspected_or_refused_but_never_crashes(position: float, byte: int, tmp_path: Path) -> None:
    source = tmp_path / "whole.pte"
    if not source.exists():
        path, _ = _lower(_program(nn.Linear(4, 2), (torch.randn(1, 4),), tmp_path / "w"), tmp_path / "w")
        path.replace(source)
    data = bytearray(source.read_bytes())
    data[int(position * len(data))] = byte
    broken = tmp_path / "broken.pte"
    broken.write_bytes(data)
    try:
        inspect(broken)
    except ArtifactError as refused:
        assert "broken.pte" in str(refused) or "XNNPACK graph" in str(refused)


def test_operator_times_name_kernels_inside_the_delegate() -> None:
    path, program, _ = tiny_artifact("executorch", "cnn", "fp32")
    with np.load(program.reference) as reference, open_session(path, 1) as session:
        times = session.operator_times([reference["input_0"][:1]], 20)
    assert any(time.type.startswith("Convolution") and time.delegated for time in times)


def test_session_is_refused_when_another_one_holds_the_thread_pool_at_another_size() -> None:
    path, _, _ = tiny_artifact("executorch", "cnn", "fp32")
    with (
        open_session(path, 1),
        pytest.raises(UnsupportedError, match=r"2 threads beside one with 1.*Instead: the same"),
    ):
        open_session(path, 2)
    for count in (2, 1):
        with open_session(path, count) as one, open_session(path, count) as other:
            assert one.inputs == other.inputs


def test_repeated_inference_reads_its_inputs_when_memory_planning_reused_their_place(tmp_path: Path) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(20, 64)
            self.head = nn.Linear(64, 3)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.head(self.table(tokens).sum(1))) * 1e9

    tokens = torch.randint(0, 20, (1, 64))
    path, _ = _lower(_program(Tokens(), (tokens,), tmp_path), tmp_path, backend="portable")
    with open_session(path, 1) as session:
        execute = session.prepare([tokens.numpy()])
        for _ in range(5):
            execute()  # fails with an index out of range where the ids were overwritten


def test_quantized_scalar_output_is_lowered_to_xnnpack(tmp_path: Path) -> None:
    class Energy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.ops.quantized_decomposed.quantize_per_tensor(self.conv(x).mean(), 0.01, 0, -128, 127, torch.int8)
            return torch.ops.quantized_decomposed.dequantize_per_tensor(y, 0.01, 0, -128, 127, torch.int8)

    torch.manual_seed(0)
    model, image = Energy(), torch.rand(1, 1, 8, 8)
    path, _ = _lower(_program(model, (image,), tmp_path), tmp_path)
    assert _error(path, model, image) < 1e-6


class Strided(nn.Module):
    """A constant of one pixel that was permuted: its strides are those of channels last, and of plain order too."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.depthwise = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8)
        self.scale = nn.Parameter(torch.randn(1, 1, 1, 8).permute(0, 3, 1, 2))

    def forward(self, x):
        return self.depthwise(self.wide(x) * self.scale)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_constants_keep_their_channels_whatever_their_strides(memory_format, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, image = Strided().eval().to(memory_format=memory_format), torch.randn(1, 3, 8, 8)
    path, _ = _lower(_program(model, (image,), tmp_path), tmp_path)
    assert _error(path, model, image) < 1e-5
