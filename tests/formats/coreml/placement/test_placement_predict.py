"""Units, segments and transfers of whole programs, and what the planner weighs."""

from __future__ import annotations

import numpy as np
import pytest
from contracts.tiny_artifacts import tiny_artifact
from formats.coreml.evaluator.mil_programs import mb, program_of, save
from formats.coreml.placement.placement_programs import convolutions, package, place, placed, weights
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import ArtifactError
from edgekit.formats.coreml.inspect import inspect
from edgekit.formats.coreml.placement import planner
from edgekit.formats.coreml.placement.facts import read_facts
from edgekit.formats.coreml.placement.predict import predict
from edgekit.formats.coreml.placement.rules import load_rules
from edgekit.records import Placement, PlacementRequest, dumps, from_json, to_json

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

LARGE = (1, 64, 56, 56)


@pytest.fixture(scope="module")
def split_package(tmp_path_factory):
    """Work for the Neural Engine on both sides of a sum that it refuses."""

    def build(x):
        before = convolutions(6)(x)
        return convolutions(6)(mb.cumsum(x=before, axis=3))

    return package(tmp_path_factory.mktemp("split"), build, x=LARGE)


def test_large_network_runs_whole_on_the_neural_engine(tmp_path) -> None:
    found = place(tmp_path, convolutions(6), x=LARGE)
    assert {item.preferred for item in found.operations} == {"neural_engine"}
    assert (found.segments, found.transfers, found.transfer_bytes) == (1, 0, 0)
    assert found.shares == {"cpu": 0, "gpu": 0, "neural_engine": 1}
    assert found.kind == "predicted"


def test_small_network_stays_on_the_cpu_and_says_what_could_be_taken(tmp_path) -> None:
    found = place(tmp_path, convolutions(1, 4), x=(1, 4, 8, 8))
    assert {item.preferred for item in found.operations} == {"cpu"}
    assert found.shares["neural_engine"] == 0
    assert found.takes["neural_engine"] == 1
    assert any("could take 100%" in note for note in found.notes)


def test_refused_operation_splits_a_network_into_segments(split_package) -> None:
    found = predict(split_package, "cpuAndNeuralEngine")
    runs = placed(found, "cumsum")
    assert runs.preferred == "cpu"
    assert found.segments == 3
    assert found.transfers == 2
    assert found.transfer_bytes == 2 * 2 * np.prod(LARGE)
    assert [item.segment for item in found.operations] == sorted(item.segment for item in found.operations)
    assert {item.segment for item in found.operations if item.preferred == "cpu"} == {1}


@pytest.mark.parametrize(
    ("compute_units", "allowed"),
    [
        ("all", {"cpu", "gpu", "neural_engine"}),
        ("cpuAndNeuralEngine", {"cpu", "neural_engine"}),
        ("cpuAndGPU", {"cpu", "gpu"}),
        ("cpuOnly", {"cpu"}),
    ],
)
def test_only_allowed_units_are_used_and_reported(split_package, compute_units, allowed) -> None:
    found = predict(split_package, compute_units)
    for item in found.operations:
        assert item.preferred in item.units
        assert set(item.units) | set(item.reasons) == allowed
        assert not set(item.units) & set(item.reasons)
    assert set(found.shares) == allowed
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.takes["cpu"] == 1


def test_operations_agree_with_those_of_inspect(split_package) -> None:
    operators = inspect(split_package).operators
    found = predict(split_package).operations
    assert [(item.index, item.name, item.type, item.macs) for item in found] == [
        (item.index, item.name, item.type, item.macs) for item in operators
    ]
    assert sum(item.cost for item in found) == pytest.approx(1)


def test_free_work_of_the_cpu_does_not_cut_a_run(tmp_path) -> None:
    """A sum that only the CPU takes and that waits for nothing comes first, though it is written in the middle."""

    def build(x, y):
        before = convolutions(6)(x)
        added = mb.add(x=before, y=mb.cumsum(x=y, axis=3))
        return convolutions(6)(added)

    found = predict(package(tmp_path, build, x=LARGE, y=LARGE), "cpuAndNeuralEngine")
    assert found.segments == 2
    assert placed(found, "cumsum").segment == 0


def test_value_that_two_units_read_is_handed_over_once(tmp_path) -> None:
    def build(x):
        before = convolutions(6)(x)
        first, second = mb.cumsum(x=before, axis=3), mb.cumsum(x=before, axis=2)
        return mb.add(x=first, y=second)

    found = predict(package(tmp_path, build, x=LARGE), "cpuAndNeuralEngine")
    assert found.transfers == 1


@pytest.mark.parametrize(("size", "unit"), [(4, "cpu"), (384, "cpu"), (512, "neural_engine")])
def test_products_go_where_core_ml_was_seen_to_put_them(size: int, unit: str, tmp_path) -> None:
    """https://github.com/vx-lang/Vx/issues/435, 436: on an M4, float16, asked of MLComputePlan."""
    path = package(tmp_path, lambda x, y: mb.matmul(x=x, y=y), x=(size, size), y=(size, size))
    assert {item.preferred for item in predict(path, "cpuAndNeuralEngine").operations} == {unit}


def test_artifacts_of_both_sorts_are_placed() -> None:
    attention = predict(tiny_artifact("coreml", "attention", "fp16").path)
    assert "neural_engine" not in placed(attention, "gather").units
    assert "neural_engine" in placed(attention, "softmax").units
    integer = predict(tiny_artifact("coreml", "cnn", "int8").path, chip="m4")
    assert {item.compute_dtype for item in integer.operations if item.type == "conv"} == {"int8"}
    assert all("neural_engine" in item.units for item in integer.operations if item.type == "conv")


def test_float32_artifact_is_kept_from_the_neural_engine_with_the_reason() -> None:
    found = predict(tiny_artifact("coreml", "cnn", "fp32").path)
    assert found.takes["neural_engine"] == 0
    assert all(item.reasons["neural_engine"] for item in found.operations if item.macs)


def test_int8_note_depends_on_the_chip(tmp_path) -> None:
    def build(x):
        for _ in range(12):
            whole = mb.quantize(input=x, scale=np.float16(0.1), output_dtype="int8")
            real = mb.dequantize(input=whole, scale=np.float16(0.1))
            x = mb.conv(x=real, weight=weights(64, 64, 3, 3), pad_type="same")
            whole = mb.quantize(input=x, scale=np.float16(0.1), output_dtype="int8")
            x = mb.dequantize(input=whole, scale=np.float16(0.1))
        return x

    path = package(tmp_path, build, x=LARGE)
    assert any("faster than float16" in note for note in predict(path, chip="a17-pro").notes)
    assert any("saves memory only" in note for note in predict(path, chip="m1").notes)


def test_same_package_gives_the_same_record(split_package) -> None:
    first, second = predict(split_package), predict(split_package)
    assert dumps(first) == dumps(second)
    assert from_json(Placement, to_json(first)) == first
    assert from_json(PlacementRequest, to_json(PlacementRequest(path=split_package))).path == split_package


def test_unknown_operation_is_placed_although_it_is_not_executed(split_package, monkeypatch) -> None:
    """The evaluator refuses what it does not know; where it runs can be told all the same."""
    from edgekit.formats.coreml.evaluator import check

    without = {name: entry for name, entry in check.known_operations().items() if name != "cumsum"}
    monkeypatch.setattr(check, "known_operations", lambda: without)
    assert placed(predict(split_package), "cumsum").preferred == "cpu"


def test_truncated_package_is_refused(split_package, tmp_path) -> None:
    import shutil

    damaged = tmp_path / "model.mlpackage"
    shutil.copytree(split_package, damaged)
    model = damaged / "Data/com.apple.CoreML/model.mlmodel"
    model.write_bytes(model.read_bytes()[:-400])
    with pytest.raises(ArtifactError):
        predict(damaged)


def test_program_without_products_is_counted_by_operations(tmp_path) -> None:
    program = program_of(lambda x: mb.cumsum(x=mb.relu(x=x)), {"x": np.zeros((4,), np.float32)}, 15)
    found = predict(save(program, 15, tmp_path))
    assert sum(found.shares.values()) == 1


# The planner's mathematics, on programs of drawn shape.


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    path = package(tmp_path_factory.mktemp("chain"), convolutions(4), x=LARGE)
    return read_facts(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_plan_is_never_dearer_than_staying_on_one_unit(chain, data) -> None:
    choices = st.sampled_from([("cpu",), ("cpu", "neural_engine"), ("cpu", "gpu"), ("cpu", "gpu", "neural_engine")])
    units = [data.draw(choices) for _ in chain]
    prices = load_rules().planner
    found = planner.assign(chain, units, prices)
    assert all(unit in allowed for unit, allowed in zip(found.units, units, strict=True))

    def whole(placed_on) -> float:
        segments = planner.number_segments(chain, placed_on)
        entered = {segment: unit for segment, unit in zip(segments, placed_on, strict=True)}
        handing = sum(prices[unit].enter_us.value for unit in entered.values() if prices[unit].enter_us is not None)
        return handing + sum(planner.cost_us(item, unit, prices) for item, unit in zip(chain, placed_on, strict=True))

    for unit in ("cpu", "gpu", "neural_engine"):
        alone = [unit if unit in allowed else "cpu" for allowed in units]
        assert whole(found.units) <= whole(alone) + 1e-6


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_segments_follow_values(chain, data) -> None:
    placed_on = [data.draw(st.sampled_from(["cpu", "gpu", "neural_engine"])) for _ in chain]
    segments = planner.number_segments(chain, placed_on)
    assert sorted(set(segments)) == list(range(max(segments) + 1))
    makers = {tensor.name: index for index, item in enumerate(chain) for tensor in item.outputs}
    for index, item in enumerate(chain):
        for tensor in item.inputs:
            if tensor.name in makers:
                assert segments[makers[tensor.name]] <= segments[index]
    for segment in set(segments):
        assert len({unit for unit, number in zip(placed_on, segments, strict=True) if number == segment}) == 1
