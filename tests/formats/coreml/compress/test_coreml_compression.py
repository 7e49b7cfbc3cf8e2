"""Each way of storing weights, written, read back by the evaluator, and held against what it must equal."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.tiny_programs import build_program, tiny_program

from edgekit.errors import RecipeError, UnsupportedError
from edgekit.formats.coreml.compress.plan import plan_weights
from edgekit.program.serialize import load_program, save_program
from edgekit.recipe.weights import CompressionRule
from edgekit.records import ExportRequest, Program
from edgekit.store.atomic import digest_path
from edgekit.verify.parity import sqnr_db

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # coremltools warns about versions while it is imported
    from edgekit.formats.coreml.export import export
    from edgekit.formats.coreml.inspect import inspect
    from edgekit.formats.coreml.package import read_package
    from edgekit.formats.coreml.session import open_session

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

USUAL = {"fp32": "fp32", "fp16": "fp32", "int8": "int8", "w8": "w8", "w6": "fp32", "w4": "w4"}
GROUPED = {"scheme": "palette", "granularity": "per_grouped_channel", "group_size": 4}
SMALLEST = 400
"""Of the tiny network: the residual convolution (1296 weights), and the linear layers (1152, 480)."""


def written(folder: Path, settings, precision, program: Program | None = None):
    """Export in one way; return the package, the program and the notes."""
    rule = CompressionRule(**{"smallest": SMALLEST, **settings})
    plan = plan_weights(rule, precision, USUAL[precision], None)
    program = program or tiny_program("cnn", plan.program)
    folder.mkdir(parents=True, exist_ok=True)
    request = ExportRequest(
        program=program,
        format="coreml",
        precision=precision,
        output=folder / "model.mlpackage",
        work_dir=folder,
        compression=plan.compression,
    )
    return request.output, program, export(request).notes


def sqnr(path: Path, program: Program, reference: str = "program_output_0") -> float:
    saved = np.load(program.reference)
    with open_session(path, 1) as session:
        found = np.concatenate([session.run([sample[None]])[0] for sample in saved["input_0"]])
    return sqnr_db(found.astype(np.float64), saved[reference].astype(np.float64))


def stored(path: Path) -> dict[str, int]:
    """``constexpr`` operation -> how many."""
    specification = read_package(path)
    function = specification.mlProgram.functions["main"]
    kinds = [operation.type for operation in function.block_specializations[function.opset].operations]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds)) if kind.startswith("constexpr_")}


def dtypes(path: Path) -> list[str | None]:
    return [operator.weight_dtype for operator in inspect(path).operators if operator.macs]


@pytest.mark.parametrize(
    ("settings", "precision", "floor_db", "operations", "dtype"),
    [
        ({"scheme": "palette"}, "w6", 40, {"constexpr_lut_to_dense": 3}, "uint6"),
        ({"scheme": "palette"}, "w4", 22, {"constexpr_lut_to_dense": 3}, "uint4"),
        (GROUPED, "w4", 22, {"constexpr_lut_to_dense": 3}, "uint4"),
        ({"scheme": "palette", "cluster_dim": 2}, "w4", 15, {"constexpr_lut_to_dense": 3}, "uint4"),
        (
            {"scheme": "palette", "table": "int8"},
            "w4",
            22,
            {"constexpr_blockwise_shift_scale": 3, "constexpr_lut_to_dense": 3},
            "uint4",
        ),
        ({"scheme": "linear", "granularity": "per_tensor"}, "w8", 45, {"constexpr_affine_dequantize": 3}, "int8"),
        (
            {"scheme": "linear", "granularity": "per_block", "block_size": 4},
            "w4",
            25,
            {"constexpr_blockwise_shift_scale": 3},
            "int4",
        ),
        ({"scheme": "sparse", "sparsity": 0.3}, "fp16", 11, {"constexpr_sparse_to_dense": 3}, "float16"),
        ({"scheme": "sparse", "sparsity": 0.3}, "fp32", 11, {"constexpr_sparse_to_dense": 3}, "float32"),
        ({"scheme": "sparse", "n_m": (1, 4)}, "fp16", 11, {"constexpr_sparse_to_dense": 3}, "float16"),
        (
            {"scheme": "linear", "sparsity": 0.3},
            "w8",
            11,
            {"constexpr_sparse_blockwise_shift_scale": 3, "constexpr_sparse_to_dense": 3},
            "int8",
        ),
        (
            {**GROUPED, "sparsity": 0.3},
            "w4",
            11,
            {"constexpr_lut_to_sparse": 3, "constexpr_sparse_to_dense": 3},
            "uint4",
        ),
        (
            {"scheme": "palette", "sparsity": 0.3, "table": "int8"},
            "w4",
            11,
            {"constexpr_blockwise_shift_scale": 3, "constexpr_lut_to_sparse": 3, "constexpr_sparse_to_dense": 3},
            "uint4",
        ),
    ],
)
def test_weights_made_small_afterwards_stay_near_the_model(
    settings, precision, floor_db, operations, dtype, tmp_path: Path
) -> None:
    path, program, _ = written(tmp_path, settings, precision)
    assert program.precision == "fp32"
    assert stored(path) == operations
    assert sqnr(path, program) > floor_db
    assert set(dtypes(path)[2:]) == {dtype}  # the stem and the depthwise convolution are too small
    assert len(set(dtypes(path)[:2]) & {"float16", "float32"}) == 1


def test_finer_tables_and_more_bits_lose_less(tmp_path: Path) -> None:
    def found(settings, precision):
        return sqnr(*written(tmp_path / f"{precision}{len(settings)}", settings, precision)[:2])

    rough, by_group, fine = found({"scheme": "palette"}, "w4"), found(GROUPED, "w4"), found({"scheme": "palette"}, "w6")
    assert rough < by_group < fine


def test_table_a_channel_holds_what_the_program_quantized(tmp_path: Path) -> None:
    settings = {"scheme": "palette", "granularity": "per_channel", "values": "program"}
    path, program, notes = written(tmp_path, settings, "w4")
    assert program.precision == "w4"
    assert stored(path) == {"constexpr_lut_to_dense": 2}
    assert sqnr(path, program) > 55
    # 12 inputs of the wide layer: a table of 16 values for each of its channels is larger than the weights
    assert any("wide" in note and "more room than it saves" in note for note in notes)


def few_values(folder: Path, *, zeros: float) -> Program:
    """A program as training leaves it: seven values a layer (eight with zero), and a share of zeros."""
    program = build_program("cnn", "fp32", folder)
    exported = load_program(program.path)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in exported.state_dict.items():
        if tensor.dim() < 2 or name.startswith(("stem", "depthwise")):
            continue
        values = torch.linspace(-0.9, 0.7, 7)
        tensor.data = values[torch.randint(7, tensor.shape, generator=generator)] * tensor.abs().max()
        tensor.data[torch.rand(tensor.shape, generator=generator) < zeros] = 0
    save_program(exported, program.path)
    saved = dict(np.load(program.reference))
    run = exported.module(check_guards=False)
    outputs = [run(torch.as_tensor(sample[None])) for sample in saved["input_0"]]
    flat = [output[0] if isinstance(output, tuple | list) else output for output in outputs]
    saved["program_output_0"] = saved["source_output_0"] = torch.cat(flat).detach().numpy()
    np.savez(program.reference, **saved)
    return program


@pytest.mark.parametrize(
    ("settings", "precision"),
    [
        ({"scheme": "sparse"}, "fp16"),
        ({"scheme": "palette", "values": "trained"}, "w4"),
        ({"scheme": "palette", "values": "trained", "sparsity": "trained"}, "w4"),
        ({**GROUPED, "values": "trained", "sparsity": "trained"}, "w4"),
    ],
)
def test_what_training_left_is_stored_without_loss(settings, precision, tmp_path: Path) -> None:
    program = few_values(tmp_path / "program", zeros=0.6)
    path, _, _ = written(tmp_path / "small", settings, precision, program)
    assert sqnr(path, program) > 55  # float16 arithmetic, and nothing more


def test_layer_with_more_values_than_a_table_holds_stays_in_floating_point(tmp_path: Path) -> None:
    program = few_values(tmp_path / "program", zeros=0.0)
    path, _, notes = written(
        tmp_path / "out", {"scheme": "palette", "values": "trained", "smallest": 100}, "w4", program
    )
    assert stored(path) == {"constexpr_lut_to_dense": 3}
    assert any("stem (as floats: its weights take" in note for note in notes)
    with pytest.raises(UnsupportedError, match=r"leave every weight as it is.*cluster: \{clusters: 16\}"):
        written(tmp_path / "none", {"scheme": "palette", "values": "trained"}, "w4")


@pytest.mark.parametrize("precision", ["w8", "w4", "int8"])
def test_zeros_of_a_quantized_program_are_left_out_without_loss(precision, tmp_path: Path) -> None:
    program = tiny_program("cnn", precision)
    path, _, notes = written(
        tmp_path / "sparse", {"scheme": "linear", "sparsity": "trained"}, precision, zeroed(program, tmp_path)
    )
    same, _, _ = written(tmp_path / "dense", {"scheme": "linear"}, precision, zeroed(program, tmp_path))
    assert stored(path)["constexpr_sparse_blockwise_shift_scale"] == 3
    assert any("zeros of 3 layers are left out" in note for note in notes)
    saved = np.load(program.reference)["input_0"]
    with open_session(path, 1) as small, open_session(same, 1) as whole:
        for sample in saved:
            np.testing.assert_array_equal(small.run([sample[None]])[0], whole.run([sample[None]])[0])


def zeroed(program: Program, folder: Path) -> Program:
    """The same program with half of its large integer weights at zero."""
    exported = load_program(program.path)
    for tensors in (exported.state_dict, exported.constants):
        for tensor in tensors.values():
            if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.int8 and tensor.numel() >= SMALLEST:
                tensor.data[tensor.abs() < tensor.abs().float().quantile(0.5)] = 0
    (folder / "zeroed").mkdir(exist_ok=True)
    save_program(exported, folder / "zeroed" / "program.pt2")
    return replace(program, path=folder / "zeroed" / "program.pt2")


def test_group_that_does_not_divide_the_channels_gives_way_to_one_table(tmp_path: Path) -> None:
    path, _, notes = written(tmp_path, GROUPED, "w4")
    assert stored(path) == {"constexpr_lut_to_dense": 3}
    assert any("head (one table: 5 channels are no multiple of 4)" in note for note in notes)


def test_skipped_layer_stays_in_floating_point_and_unknown_one_is_an_error(tmp_path: Path) -> None:
    path, _, notes = written(tmp_path / "out", {"scheme": "palette", "skip": ("head", "type:Conv2d")}, "w4")
    assert stored(path) == {"constexpr_lut_to_dense": 1}
    assert any("head (left alone by the rule 'head')" in note for note in notes)
    with pytest.raises(RecipeError, match=r"export\.compression\.skip: the rule 'hed' matches no layer"):
        written(tmp_path / "none", {"scheme": "palette", "skip": ("hed",)}, "w4")


@pytest.mark.parametrize(("settings", "precision"), [({"scheme": "sparse"}, "fp16"), ({"scheme": "linear"}, "w8")])
def test_zeros_that_are_not_there_are_an_error_with_a_way_out(settings, precision, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"in no weight are .* zeros.*compress: \[prune"):
        written(tmp_path, {**settings, "sparsity": "trained"}, precision)


@pytest.mark.parametrize("settings", [{**GROUPED, "sparsity": 0.5}, {"scheme": "palette", "cluster_dim": 2}])
def test_package_has_the_same_bytes_when_written_twice(settings, tmp_path: Path) -> None:
    first, _, _ = written(tmp_path / "a", settings, "w4")
    second, _, _ = written(tmp_path / "b" / "elsewhere", settings, "w4")
    assert digest_path(first) == digest_path(second)


def test_embeddings_and_attention_are_stored_in_tables(tmp_path: Path) -> None:
    program = tiny_program("attention", "fp32")
    path, _, _ = written(tmp_path, {"scheme": "palette", "smallest": 200}, "w6", program)
    assert stored(path) == {"constexpr_lut_to_dense": 4}
    saved = np.load(program.reference)
    with open_session(path, 1) as session:
        samples = zip(saved["input_0"], saved["input_1"], strict=True)
        found = np.concatenate([session.run([tokens[None], mask[None]])[0] for tokens, mask in samples])
    assert sqnr_db(found.astype(np.float64), saved["program_output_0"].astype(np.float64)) > 25
