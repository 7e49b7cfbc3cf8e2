"""Whole programs: control flow, lists, states, functions, free shapes, compression, converted networks, precision."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from formats.coreml.evaluator.mil_programs import ct, mb, program_of, run, save, target, types
from torch import nn

from edgekit.errors import ArtifactError, DataError, UnsupportedError
from edgekit.formats.coreml.evaluator import Evaluator, analyse_precision
from edgekit.formats.coreml.evaluator import coverage as coverage_module
from edgekit.formats.coreml.evaluator.load import load
from edgekit.formats.coreml.package import MODEL, WEIGHTS, read_package

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

RANDOM = np.random.default_rng(11)


def _sqnr(found, expected) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return 10 * np.log10(np.square(expected).sum() / max(np.square(found - expected).sum(), 1e-30))


# Control flow, lists, states, functions, free shapes.


@pytest.mark.parametrize(("start", "expected"), [(-3.0, 9.0), (40.0, 39.0)])
def test_loop_and_branch_follow_the_values(start: float, expected: float) -> None:
    def build(x):
        stepped = mb.while_loop(
            _cond=lambda v: mb.squeeze(x=mb.less(x=v, y=5.0)), _body=lambda v: (mb.add(x=v, y=4.0),), loop_vars=(x,)
        )
        above = mb.squeeze(x=mb.greater(x=stepped, y=20.0))
        return mb.cond(
            pred=above, _true_fn=lambda: mb.sub(x=stepped, y=1.0), _false_fn=lambda: mb.add(x=stepped, y=4.0)
        )

    assert run(build, {"x": np.float32([start])})[0] == [expected]


def test_list_grows_and_gives_back_what_was_written() -> None:
    def build(x):
        values = mb.make_list(init_length=1, elem_shape=(2,), dtype="fp32")
        values = mb.list_write(ls=values, index=2, value=x)
        values = mb.list_scatter(ls=values, indices=[0, 3], value=mb.stack(values=[mb.mul(x=x, y=2.0), x], axis=0))
        return mb.list_gather(ls=values, indices=[3, 0]), mb.list_read(ls=values, index=1), mb.list_length(ls=values)

    gathered, unwritten, length = run(build, {"x": np.float32([1, 2])})
    np.testing.assert_array_equal(gathered, [[1, 2], [2, 4]])
    assert not unwritten.any() and length == 4


def test_state_lasts_from_run_to_run_when_it_is_handed_on() -> None:
    specs = [mb.TensorSpec((2,), dtype=types.fp16), mb.StateTensorSpec((2,), dtype=types.fp16)]

    @mb.program(input_specs=specs, opset_version=target(18))
    def program(x, total):
        return mb.coreml_update_state(state=total, value=mb.add(x=mb.read_state(input=total), y=x))

    evaluator = Evaluator(save(program, 18, compute_precision=ct.precision.FLOAT16))
    (name,) = (item.name for item in evaluator.inputs)
    states, x = evaluator.make_state(), {name: np.float32([1, 2])}
    sums = [next(iter(evaluator.run(x, states=states).values())).tolist() for _ in range(2)]
    assert sums == [[1, 2], [2, 4]]
    assert next(iter(evaluator.run(x).values())).tolist() == [1, 2]


def test_each_function_of_a_package_runs_by_its_name(tmp_path: Path) -> None:
    descriptor = ct.utils.MultiFunctionDescriptor()
    for name, factor in (("double", 2.0), ("negate", -1.0)):
        program = program_of(lambda x, factor=factor: mb.mul(x=x, y=factor), {"x": np.float32([1])}, 18)
        descriptor.add_function(str(save(program, 18)), "main", name)
    descriptor.default_function_name = "negate"
    path = tmp_path / "both.mlpackage"
    ct.utils.save_multifunction(descriptor, str(path))
    x = {"x": np.float32([3])}
    found = [next(iter(Evaluator(path, function=name).run(x).values()))[0] for name in ("double", "negate", None)]
    assert found == [6, -3, -3]
    with pytest.raises(ArtifactError, match="no function 'half'"):
        Evaluator(path, function="half")


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, x):
        return self.conv(x).relu().mean((2, 3))


def _convert(model: nn.Module, example: torch.Tensor, ios: int = 17, half: bool = False, **options):
    precision = ct.precision.FLOAT16 if half else ct.precision.FLOAT32
    with warnings.catch_warnings():  # tracing warns of python values that these networks fix on purpose
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(model.eval(), example)
    return ct.convert(
        traced,
        inputs=options.pop("inputs", [ct.TensorType(name="x", shape=example.shape)]),
        minimum_deployment_target=target(ios),
        compute_precision=precision,
        skip_model_load=True,
        **options,
    )


def _saved(model, folder: Path) -> Path:
    model.save(str(folder / "net.mlpackage"))
    return folder / "net.mlpackage"


def _output(path: Path, x: torch.Tensor, **options) -> np.ndarray:
    return next(iter(Evaluator(path, **options).run({"x": x.numpy()}).values()))


def test_free_shapes_are_followed_inside_their_range(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, example = Pooled(), torch.randn(1, 3, 8, 8)
    shape = ct.Shape((ct.RangeDim(1, 3), 3, ct.RangeDim(8, 16), 8))
    path = _saved(_convert(model, example, inputs=[ct.TensorType(name="x", shape=shape)]), tmp_path)
    x = torch.randn(3, 3, 11, 8)
    assert _sqnr(_output(path, x), model(x).detach()) > 90
    with pytest.raises(DataError, match=r"shape \[1..3, 3, 8..16, 8\]; received \[1, 3, 17, 8\]"):
        _output(path, torch.zeros(1, 3, 17, 8))


# Converted networks, and compressed ones.


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(4, 8, batch_first=True, bidirectional=True), nn.GRU(16, 8, batch_first=True)

    def forward(self, x):
        return self.gru(self.lstm(x)[0])[0][:, -1]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.head = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 4)

    def forward(self, x):
        query, key, value = self.mix(self.norm(x)).reshape(1, -1, 3, 2, 8).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.head(nn.functional.gelu(mixed.transpose(1, 2).reshape(1, -1, 16)))


@pytest.mark.parametrize(
    ("network", "shape", "ios"), [(Recurrent, (1, 6, 4), 15), (Attention, (1, 5, 16), 18), (Pooled, (1, 3, 9, 9), 16)]
)
def test_converted_network_gives_its_sources_values(network, shape, ios: int, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, x = network(), torch.randn(shape)
    with torch.no_grad():
        expected = model(x).numpy()
    path = _saved(_convert(model, x, ios), tmp_path)
    assert _sqnr(_output(path, x), expected) > 100
    assert 40 < _sqnr(_output(path, x, compute="fp16"), expected) < 90


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, x):
        return self.layer(x)


def _palette(bits: int, **options):
    c = ct.optimize.coreml
    return lambda model: c.palettize_weights(
        model, c.OptimizationConfig(c.OpPalettizerConfig(nbits=bits, weight_threshold=0, **options))
    )


def _linear(**options):
    c = ct.optimize.coreml
    return lambda model: c.linear_quantize_weights(
        model, c.OptimizationConfig(c.OpLinearQuantizerConfig(weight_threshold=0, **options))
    )


def _sparse(model):
    c = ct.optimize.coreml
    return c.prune_weights(
        model, c.OptimizationConfig(c.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=0))
    )


def _both(first, second, **options):
    def compress(model):
        return second(first(model))

    return compress


COMPRESSIONS = {
    "palette-4-ios16": (16, _palette(4, mode="uniform"), "constexpr_lut_to_dense"),
    "palette-6-ios18": (18, _palette(6, mode="uniform"), "constexpr_lut_to_dense"),
    "palette-grouped": (18, _palette(4, mode="uniform", granularity="per_grouped_channel", group_size=16),
                        "constexpr_lut_to_dense"),
    "palette-vector": (18, _palette(4, mode="kmeans", cluster_dim=2), "constexpr_lut_to_dense"),
    "linear-int8-ios16": (16, _linear(mode="linear_symmetric"), "constexpr_affine_dequantize"),
    "linear-uint8-offset": (17, _linear(mode="linear", dtype="uint8"), "constexpr_affine_dequantize"),
    "blockwise-int4": (18, _linear(mode="linear", dtype="int4", granularity="per_block", block_size=16),
                       "constexpr_blockwise_shift_scale"),
    "sparse-ios16": (16, _sparse, "constexpr_sparse_to_dense"),
    "sparse-ios18": (18, _sparse, "constexpr_sparse_to_dense"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_compressed_weights_are_those_that_coremltools_decompresses(name: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    ios, compress, operation = COMPRESSIONS[name]
    model, x = Wide(), torch.randn(1, 64)
    compressed = compress(_convert(model, x, ios))
    whole = _saved(ct.optimize.coreml.decompress_weights(compressed), tmp_path)
    expected = _output(whole, x)
    (tmp_path / "compressed").mkdir()
    path = _saved(compressed, tmp_path / "compressed")
    assert operation in {item.type for item in load(path).functions["main"].block.operations}
    assert _sqnr(_output(path, x), expected) > 100
    assert _sqnr(expected, model(x).detach()) < 60  # the weights were compressed indeed


MASKED = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]])


def test_sparse_blockwise_weights_give_the_opsets_example() -> None:
    bits, scale = types.np_uint1_dtype, np.float32([[0.1, 0.2, 0.3, 0.4]])

    def build(x):
        mask, values = mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=MASKED.astype(bits),
            nonzero_data=np.int8([10, 11, 3, 4, 5, 6, 7, 8, 9]),
            scale=scale,
            offset=np.int8([[1, 2, 3, 4]]),
        )
        return mb.add(x=x, y=mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask))

    found = run(build, {"x": np.zeros((4, 4), np.float32)}, ios=18)[0]
    np.testing.assert_allclose(found[MASKED == 1], [0.9, 1.8, 0.2, 0.4, 0.6, 0.9, 1.2, 0.7, 1.4], rtol=1e-5)
    assert not found[MASKED == 0].any()


def test_sparse_palette_gives_the_table_where_the_mask_is_set() -> None:
    bits = types.np_uint1_dtype
    indices = np.array([0, 1, 1, 0, 1, 1, 0, 0, 1])

    def build(x):
        mask, values = mb.constexpr_lut_to_sparse(
            indices_mask=MASKED.astype(bits),
            indices_nonzero_data=indices.astype(bits),
            lut=np.float32([2.0, 3.0]).reshape(1, 1, 2, 1),
        )
        return mb.add(x=x, y=mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask))

    found = run(build, {"x": np.zeros((4, 4), np.float32)}, ios=18)[0]
    np.testing.assert_array_equal(found[MASKED == 1], indices + 2.0)
    assert not found[MASKED == 0].any()


def test_quantize_rounds_and_saturates_and_dequantize_comes_back() -> None:
    x = np.float32([[-9, -0.26, 0.25, 0.75], [-9, 0.1, 0.3, 9]])

    def build(x):
        steps = mb.quantize(
            input=x, scale=np.float32([0.5, 0.05]), zero_point=np.int8([3, 0]), axis=0, output_dtype="int8"
        )
        back = mb.dequantize(input=steps, scale=np.float32([0.5, 0.05]), zero_point=np.int8([3, 0]), axis=0)
        return mb.cast(x=steps, dtype="int32"), back

    steps, back = run(build, {"x": x}, ios=17)
    np.testing.assert_array_equal(steps, [[-15, 2, 3, 5], [-128, 2, 6, 127]])
    np.testing.assert_allclose(back, [[-9, -0.5, 0, 1], [-6.4, 0.1, 0.3, 6.35]], rtol=1e-6)


# Half precision.


class Overflowing(nn.Module):
    def forward(self, x):
        return (x * 300.0).square().mean(-1).sqrt() / 300.0


def test_first_operation_that_overflows_is_named(tmp_path: Path) -> None:
    x = torch.rand(1, 8) + 1
    path = _saved(_convert(Overflowing(), x, half=True), tmp_path)
    report = analyse_precision(path, {"x": x.numpy()})
    worst = next(item for item in report.operations if item.name == report.first_overflow)
    assert report.compute == "declared" and worst.type in ("square", "mul", "pow") and worst.max_abs > 65504
    assert report.lossiest(1) == (worst,)
    assert [item.overflows for item in report.operations].index(True) == report.operations.index(worst)
    assert not np.isfinite(_output(path, x)).all()
    assert _sqnr(_output(path, x, compute="fp32"), Overflowing()(x)) > 50


def test_precision_of_a_float32_program_is_what_half_would_cost(tmp_path: Path) -> None:
    torch.manual_seed(3)
    x = torch.randn(1, 5, 16)
    report = analyse_precision(_saved(_convert(Attention(), x, 17), tmp_path), {"x": x.numpy()})
    assert report.compute == "fp16" and report.first_overflow is None
    (output,) = report.outputs.values()
    assert output is not None and 40 < output < 90
    assert all(item.own_sqnr_db is None or item.own_sqnr_db > 40 for item in report.operations)


# The table, and bad input.


def test_every_registered_operation_is_executed_but_the_named_ones() -> None:
    rows = coverage_module.coverage()
    assert {row.name for row in rows if row.family is None} == {"_const_symbolic", "classify"}
    assert all(row.note and len(row.note) > 10 for row in rows)
    written = Path(coverage_module.__file__).with_name(coverage_module.TABLE).read_text(encoding="utf-8")
    assert written == coverage_module.coverage_table(), "run: python -m edgekit.formats.coreml.evaluator.coverage"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return _saved(_convert(Wide(), torch.randn(1, 64)), tmp_path)


def _edited(package: Path, change) -> Path:
    specification = read_package(package)
    main = specification.mlProgram.functions["main"]
    change(specification, main.block_specializations[main.opset])
    (package / MODEL).write_bytes(specification.SerializeToString())
    return package


def _operation(block, kind: str):
    return next(operation for operation in block.operations if operation.type == kind)


def _rename(specification, block) -> None:
    _operation(block, "linear").type = "lineal"


def _lose(specification, block) -> None:
    block.operations.remove(_operation(block, "const"))


def _swap(specification, block) -> None:
    _operation(block, "linear").outputs[0].type.tensorType.dimensions[1].constant.size = 7


def _opset(specification, block) -> None:
    specification.mlProgram.functions["main"].opset = "CoreML99"


def _outside(specification, block) -> None:
    blob = next(op.attributes["val"] for op in block.operations if op.attributes["val"].HasField("blobFileValue"))
    blob.blobFileValue.fileName = "@model_path/../../../../secret.bin"


def _reshape(specification, block) -> None:
    blob = next(op.attributes["val"] for op in block.operations if op.attributes["val"].HasField("blobFileValue"))
    blob.type.tensorType.dimensions[0].constant.size = 100000


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (_rename, UnsupportedError, r"\(lineal, function 'main', \d+\).*Did you mean 'linear'"),
        (_lose, ArtifactError, "which nothing before it gives"),
        (_swap, ArtifactError, r"declares .* as float32 \[1, 7\]; its inputs give \[1, 64\]"),
        (_opset, ArtifactError, "operation set among CoreML5.*received 'CoreML99'"),
        (_outside, ArtifactError, "inside the package"),
        (_reshape, ArtifactError, "takes .* bytes; the entry at byte"),
    ],
)
def test_damaged_program_is_refused_with_its_place(change, error, message: str, package: Path) -> None:
    with pytest.raises(error, match=message):
        Evaluator(_edited(package, change)).run({"x": np.zeros((1, 64), np.float32)})


def test_missing_and_truncated_weights_are_refused(package: Path) -> None:
    data = (package / WEIGHTS).read_bytes()
    (package / WEIGHTS).write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError, match=r"truncated|no constant"):
        Evaluator(package)
    (package / WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        Evaluator(package)


def test_neural_network_is_reported_and_refused(package: Path) -> None:
    builder = ct.models.neural_network.NeuralNetworkBuilder(
        [("x", ct.models.datatypes.Array(3))], [("y", ct.models.datatypes.Array(3))]
    )
    builder.add_activation("act", "RELU", "x", "y")
    (package / MODEL).write_bytes(builder.spec.SerializeToString())
    with pytest.raises(
        UnsupportedError, match=r"neuralNetwork of specification \d+ \(x to y; 1 activation\).*mlprogram"
    ):
        Evaluator(package)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [({}, "expected the input 'x'"), ({"x": np.zeros(3)}, r"expected float32 \[1, 64\]"),
     ({"x": np.zeros((1, 64), np.float32), "z": np.zeros(1)}, "no input 'z'")],
)  # fmt: skip
def test_wrong_inputs_are_refused(inputs, message: str, package: Path) -> None:
    with pytest.raises(DataError, match=message):
        Evaluator(package).run(inputs)
