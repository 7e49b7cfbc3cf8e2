"""Float16 in Core ML packages: what breaks is found, located, kept in float32, and looked at again."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.contracts import ExportResult
from edgekit.errors import DataError, RecipeError, UnsupportedError
from edgekit.program.serialize import save_program
from edgekit.records import ExportRequest, Program, TensorSpec
from edgekit.store.atomic import digest_path

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # coremltools warns about versions while it is imported
    from edgekit.formats.coreml import float16
    from edgekit.formats.coreml.export import export
    from edgekit.formats.coreml.half_precision import MOST_SAMPLES, Layers, analyse_half_precision
    from edgekit.formats.coreml.session import open_session, open_session_with_compute

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
_GENERATOR = np.random.default_rng(5)
_IMAGES = _GENERATOR.normal(size=(6, 1, 8, 8)).astype(np.float32)
_ROWS = _GENERATOR.normal(size=(6, 4, 8)).astype(np.float32)


class Squared(nn.Module):
    """Weights that are squared scores over their sum."""

    def forward(self, x):
        scores = x @ x.transpose(1, 2)
        weights = scores * scores
        return (weights / weights.sum(-1, keepdim=True)) @ x


class Overflowing(nn.Module):
    """Its middle leaves the range of float16, and comes back."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.query = nn.Linear(8, 8)
        self.attention = Squared()
        self.head = nn.Linear(8, 3)

    def forward(self, image):
        rows = torch.relu(self.norm(self.stem(image))).mean(1) * 300
        return self.head(self.attention(self.query(rows)).mean(1) / 100)


class Clipped(nn.Module):
    """Overflows where infinity comes to the same."""

    def forward(self, rows):
        return (rows * 1e4 * 1e4).clamp(-6, 6) + rows


class Cancelling(nn.Module):
    """A variance as the difference of two large numbers, between two layers that lose nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(8, 16)
        self.head = nn.Linear(4, 3)

    def forward(self, rows):
        rows = self.embed(rows) + 100
        return self.head((rows * rows).mean(-1) - rows.mean(-1) * rows.mean(-1))


def _export(model: nn.Module, samples: np.ndarray, folder: Path, **changes: object) -> tuple[Path, ExportResult]:
    folder.mkdir(parents=True, exist_ok=True)
    program = torch.export.export(model.eval(), (torch.from_numpy(samples[:1]),))
    save_program(program, folder / "program.pt2")
    np.savez(folder / "reference.npz", input_0=samples)
    described = Program(
        path=folder / "program.pt2",
        precision="fp32",
        dynamic_batch=False,
        inputs=(TensorSpec(name="x", dtype="float32", shape=(1, *samples.shape[1:])),),
        outputs=(TensorSpec(name="out", dtype="float32", shape=(1,)),),
        reference=folder / "reference.npz",
        calibration=None,
        output_steps=(None,),
    )
    output = folder / "model.mlpackage"
    request = ExportRequest(program=described, format="coreml", precision="fp16", output=output, work_dir=folder)
    return output, export(replace(request, **changes))


def _run(path: Path, samples: np.ndarray) -> np.ndarray:
    with open_session(path, 1) as session:
        return np.stack([session.run([sample[None]])[0] for sample in samples])


def _sqnr(found: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10((expected**2).sum() / ((found - expected) ** 2).sum()))


def _expected(model: nn.Module, samples: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.stack([model(torch.from_numpy(sample[None])).numpy() for sample in samples])


def test_overflow_is_kept_in_float32_and_the_rest_in_float16_when_nothing_is_asked(tmp_path: Path) -> None:
    model = Overflowing().eval()
    path, result = _export(model, _IMAGES, tmp_path)
    found = result.half_precision
    assert found is not None
    assert found.kept_in_float32 == ("mul_1", "sum_1", "div")
    assert found.first_overflow is None
    assert found.samples == 6
    (sqnr,) = found.outputs.values()
    assert sqnr is not None
    assert sqnr > 55
    assert _sqnr(_run(path, _IMAGES), _expected(model, _IMAGES)) > 55
    (note,) = (note for note in result.notes if "mul_1, sum_1, div" in note)
    assert "never on the Neural Engine" in note
    assert "'mul_1' gives up to" in note


def test_overflow_is_named_with_its_layer_when_nothing_may_be_kept(tmp_path: Path) -> None:
    path, result = _export(Overflowing(), _IMAGES, tmp_path, keep_float32=())
    found = result.half_precision
    assert found is not None
    assert list(found.outputs.values()) == [None]
    assert found.first_overflow == "mul_1"
    assert (found.worst[0].name, found.worst[0].layer, found.worst[0].starts_overflow) == ("mul_1", "attention", True)
    assert found.worst[0].max_abs > 65504
    assert found.keep_in_float32 == ("mul_1", "sum_1", "div")
    assert found.kept_in_float32 == ()
    assert not np.isfinite(_run(path, _IMAGES)).all()


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        (("attention",), ("attention",)),
        (("type:Squared",), ("attention",)),
        (("stem", "head"), ("stem", "head")),  # the convolution was folded into the normalisation behind it
        (("type:mul", "sum_1", "di*"), ("mul", "mul_1", "sum_1", "div", "_inversed_div_1")),
    ],
)
def test_rules_pick_layers_and_operations(tmp_path: Path, rules: tuple[str, ...], kept: tuple[str, ...]) -> None:
    _, result = _export(Overflowing(), _IMAGES, tmp_path, keep_float32=rules)
    assert result.half_precision is not None
    assert set(result.half_precision.kept_in_float32) == set(kept)
    assert any(note.endswith("as asked") for note in result.notes)


def test_rule_is_refused_when_it_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"export\.keep_float32: the rule 'atention' matches no layer\. Did you mean"):
        _export(Overflowing(), _IMAGES, tmp_path, keep_float32=("atention",))


def test_overflow_is_left_alone_when_no_output_changes_by_it(tmp_path: Path) -> None:
    path, result = _export(Clipped(), _ROWS, tmp_path)
    assert result.half_precision is not None
    assert result.half_precision.kept_in_float32 == ()
    assert result.half_precision.keep_in_float32 == ()
    assert result.half_precision.first_overflow == "mul_1"
    assert any("no output changes by it" in note for note in result.notes)
    assert _sqnr(_run(path, _ROWS), _expected(Clipped(), _ROWS)) > 55


def test_operations_that_lose_too_much_are_kept_when_nothing_overflows(tmp_path: Path) -> None:
    model = Cancelling().eval()
    path, result = _export(model, _ROWS, tmp_path / "auto")
    broken, unkept = _export(model, _ROWS, tmp_path / "none", keep_float32=())
    expected = _expected(model, _ROWS)
    assert _sqnr(_run(broken, _ROWS), expected) < 20
    assert _sqnr(_run(path, _ROWS), expected) > 40
    assert unkept.half_precision is not None
    assert unkept.half_precision.first_overflow is None
    assert result.half_precision is not None
    assert "sub" in result.half_precision.kept_in_float32
    assert not {"embed", "head"} & set(result.half_precision.kept_in_float32)


def test_overflow_is_found_when_one_sample_of_many_has_it(tmp_path: Path) -> None:
    samples = np.concatenate([np.repeat(_IMAGES[:1] * 1e-3, MOST_SAMPLES + 8, axis=0), _IMAGES[:1]])
    _, result = _export(Overflowing(), samples, tmp_path)
    assert result.half_precision is not None
    assert result.half_precision.samples == MOST_SAMPLES
    assert result.half_precision.kept_in_float32 == ("mul_1", "sum_1", "div")


def test_repaired_package_has_the_same_bytes_when_it_is_made_again(tmp_path: Path) -> None:
    first, _ = _export(Overflowing(), _IMAGES, tmp_path / "first")
    second, _ = _export(Overflowing(), _IMAGES, tmp_path / "second")
    assert digest_path(first) == digest_path(second)


def test_export_fails_with_the_way_out_when_nothing_repairs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float16, "ROUNDS", 0)
    with pytest.raises(
        UnsupportedError, match=r"'mul_1' gives up to .* Instead: precision: fp32, or keep_float32: \[\]"
    ):
        _export(Overflowing(), _IMAGES, tmp_path)


class Turned(nn.Module):
    """Moves values that float16 cannot hold."""

    def forward(self, rows):
        return rows.transpose(1, 2)


def test_everything_is_kept_in_float32_when_the_inputs_are_out_of_range(tmp_path: Path) -> None:
    path, result = _export(Turned(), _ROWS * np.float32(1e6), tmp_path)
    assert any("Neural Engine: everything; in float16 the output 'out' is not finite" in note for note in result.notes)
    np.testing.assert_array_equal(_run(path, _ROWS * np.float32(1e6))[:, 0], _ROWS.transpose(0, 2, 1) * np.float32(1e6))


def test_export_says_so_when_there_are_no_samples_to_look_at(tmp_path: Path) -> None:
    _, first = _export(Clipped(), _ROWS, tmp_path)
    assert first.half_precision is not None
    (tmp_path / "reference.npz").unlink()
    described = Program(
        path=tmp_path / "program.pt2",
        precision="fp32",
        dynamic_batch=False,
        inputs=(TensorSpec(name="x", dtype="float32", shape=(1, 4, 8)),),
        outputs=(TensorSpec(name="out", dtype="float32", shape=(1, 4, 8)),),
        reference=tmp_path / "reference.npz",
        calibration=None,
        output_steps=(None,),
    )
    output = tmp_path / "again.mlpackage"
    request = ExportRequest(program=described, format="coreml", precision="fp16", output=output, work_dir=tmp_path)
    result = export(request)
    assert result.half_precision is None
    assert result.notes == ("what float16 does was not looked at: there are no samples",)


def test_float32_package_shows_what_half_precision_would_cost_it(tmp_path: Path) -> None:
    path, result = _export(Overflowing(), _IMAGES, tmp_path, precision="fp32")
    assert result.half_precision is None
    found = analyse_half_precision(path, [[image[None]] for image in _IMAGES], "fp16")
    assert found.compute == "fp16"
    assert found.first_overflow == "mul_1"
    assert found.keep_in_float32 == ("mul_1", "sum_1", "div")
    declared = analyse_half_precision(path, [[image[None]] for image in _IMAGES], "declared")
    assert declared.first_overflow is None
    assert declared.worst == ()
    with pytest.raises(DataError, match="at least one sample"):
        analyse_half_precision(path, [], "fp16")


def test_session_rounds_as_it_is_asked_to(tmp_path: Path) -> None:
    path, _ = _export(Overflowing(), _IMAGES, tmp_path, keep_float32=())
    outputs = {}
    for compute in ("declared", "fp16", "fp32"):
        with open_session_with_compute(path, 1, compute) as session:
            outputs[compute] = session.run([_IMAGES[:1]])[0]
    assert not np.isfinite(outputs["declared"]).all()
    assert not np.isfinite(outputs["fp16"]).all()
    assert _sqnr(outputs["fp32"], Overflowing().eval()(torch.from_numpy(_IMAGES[:1])).detach().numpy()) > 50


def test_layers_stand_for_operations_only_when_all_of_theirs_are_meant() -> None:
    layers = Layers(of={"a": ("block.fc", "block"), "b": ("block",), "c": ()})
    assert layers.shorten(("a",)) == ("block.fc",)
    assert layers.shorten(("a", "b", "c")) == ("block", "c")
    assert layers.shorten(("b",)) == ("b",)
    assert layers.layer("a") == "block.fc"
    assert layers.layer("c") is None
