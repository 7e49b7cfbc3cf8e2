"""Folded weights and their other forms: nothing may be lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit.errors import ModelError, UntrustedCodeError
from edgekit.program.quantization import is_quantize, output_quantizations
from edgekit.program.serialize import load_program, save_program
from edgekit.program.weights import dequantize_weights, strip_activation_quantization, unfold_weights

OPS = torch.ops.quantized_decomposed


class Folded(nn.Module):
    """A linear layer as convert_pt2e leaves it: integers, one scale a row, quantized activations."""

    def __init__(self, integers: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.register_buffer("integers", integers)
        self.register_buffer("scales", scales)
        self.register_buffer("points", torch.zeros(len(scales), dtype=torch.int64))

    def forward(self, input: Tensor) -> Tensor:  # a name that fx renames
        weight = OPS.dequantize_per_channel(self.integers, self.scales, self.points, 0, -127, 127, torch.int8)
        codes = OPS.quantize_per_tensor(input, 0.05, 3, -128, 127, torch.int8)
        real = OPS.dequantize_per_tensor(codes, 0.05, 3, -128, 127, torch.int8)
        out = nn.functional.linear(real, weight)
        return OPS.dequantize_per_tensor(
            OPS.quantize_per_tensor(out, 0.5, -4, -128, 127, torch.int8), 0.5, -4, -128, 127, torch.int8
        )


def folded_program(rows: int = 3, columns: int = 4, seed: int = 0, exponent: float = -6.0):
    generator = torch.Generator().manual_seed(seed)
    integers = torch.randint(-127, 128, (rows, columns), generator=generator, dtype=torch.int8)
    scales = torch.rand(rows, generator=generator) * 2.0**exponent + 2.0**exponent
    return torch.export.export(Folded(integers, scales), (torch.ones(1, columns),)), integers, scales


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), exponent=st.floats(-22, 6))
def test_unfold_gives_back_the_same_integers_when_quantized_again(seed: int, exponent: float) -> None:
    program, integers, _ = folded_program(seed=seed, exponent=exponent)
    unfolded = unfold_weights(program)
    quantize = next(node for node in unfolded.graph.nodes if is_quantize(node))
    assert quantize.target is OPS.quantize_per_channel.default
    real = unfolded.state_dict["integers"]
    arguments = [unfolded.state_dict["scales"], unfolded.state_dict["points"], *quantize.args[3:]]
    assert torch.equal(quantize.target(real, *arguments), integers)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_dequantized_weights_give_the_same_integers_when_scales_are_derived_anew(seed: int) -> None:
    program, integers, _ = folded_program(columns=16, seed=seed)
    integers[:, 0] = 127  # max|w| / 127 is the rule that made the scales
    real = dequantize_weights(program).state_dict["integers"]
    derived = real.abs().amax(1, keepdim=True) / 127
    assert torch.equal(torch.round(real / derived).to(torch.int8), integers)


@pytest.mark.parametrize("change", [unfold_weights, dequantize_weights])
def test_program_computes_the_same_when_weights_change_form(change) -> None:
    program, _, _ = folded_program()
    sample = torch.randn(1, 4)
    assert torch.equal(change(program).module()(sample), program.module()(sample))
    assert program.state_dict["integers"].dtype is torch.int8  # the program that was passed in is as it was


def test_strip_leaves_a_float_program_when_weights_are_dequantized_too() -> None:
    program, integers, scales = folded_program()
    stripped = strip_activation_quantization(dequantize_weights(program))
    sample = torch.randn(1, 4)
    expected = sample @ (integers.float() * scales[:, None]).T
    torch.testing.assert_close(stripped.module()(sample), expected)
    assert set(stripped.state_dict) == {"integers"}  # scales and zero points are gone
    assert output_quantizations(stripped) == (None,)
    assert output_quantizations(program)[0].scale == (0.5,)


def test_saved_programs_are_byte_identical_when_written_to_different_paths(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    first, second = tmp_path / "program.pt2", tmp_path / "elsewhere" / "other.pt2"
    save_program(folded_program()[0], first)
    save_program(folded_program()[0], second)
    assert first.read_bytes() == second.read_bytes()
    assert str(Path(__file__).parent).encode() not in first.read_bytes()
    sample = torch.randn(1, 4)
    assert torch.equal(load_program(first).module()(sample), folded_program()[0].module()(sample))


@pytest.mark.parametrize("keep", [0, 40, 0.5])
def test_load_names_the_file_when_a_program_is_truncated(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "program.pt2"
    save_program(folded_program()[0], path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep if keep >= 1 else keep * len(whole))])
    with pytest.raises(ModelError, match=r"program\.pt2.*truncated"):
        load_program(path)


def test_load_says_so_when_there_is_no_program(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        load_program(tmp_path / "missing.pt2")


class Touch:
    """Pickles to a call that makes a file: what a hostile program would do."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_load_refuses_code_when_a_program_carries_a_pickle(tmp_path: Path) -> None:
    import io
    import zipfile

    path, mark = tmp_path / "program.pt2", tmp_path / "executed"
    save_program(folded_program()[0], path)
    hostile = io.BytesIO()
    torch.save(((Touch(str(mark)),), {}), hostile)
    changed = tmp_path / "changed.pt2"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            target.writestr(name, hostile.getvalue() if "sample_inputs" in name else source.read(name))
    with pytest.raises((UntrustedCodeError, ModelError)):
        load_program(changed)
    assert not mark.exists()
