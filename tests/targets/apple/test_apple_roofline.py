"""The roofline against times worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.records import ComputeUnits, OperationPlacement, Placement, Unit
from edgekit.targets import find_device
from edgekit.targets.apple.roofline import Prediction, predict, quickest
from edgekit.targets.apple.spec import AppleDevice


def chip(**engine: Any) -> AppleDevice:
    """A chip of round figures: 1 TFLOP/s sustained in float16, 50 GB/s, 100 GB/s on chip, 100 us to start."""
    found = find_device("apple-m1")
    assert isinstance(found, AppleDevice)
    figures = {
        "gflops_fp16": 2000.0,
        "gops_int8": 4000.0,
        "sustained_share": 0.5,
        "stream_gb_s": 50.0,
        "on_chip_kib": 1024,
        "on_chip_gb_s": 100.0,
        "launch_us": 100.0,
        "operation_us": 0.0,
        **engine,
    }
    cpu = {**figures, "gflops_fp32": 500.0, "launch_us": 10.0, "operation_us": 1.0}
    del cpu["gops_int8"]
    return found.model_copy(
        update={
            "neural_engine": found.neural_engine.model_copy(update=figures),
            "cpu": found.cpu.model_copy(update=cpu),
            "memory": found.memory.model_copy(update={"bandwidth_gb_s": 50.0}),
        }
    )


def operation(index: int = 0, unit: Unit = "neural_engine", segment: int = 0, **facts: Any) -> OperationPlacement:
    return OperationPlacement(
        **{
            "index": index,
            "name": f"op_{index}",
            "type": "conv",
            "units": (unit,),
            "preferred": unit,
            "segment": segment,
            "compute_dtype": "float16",
            "macs": 0,
            "weight_bytes": 0,
            "activation_bytes": 0,
            **facts,
        }
    )


def placement(*operations: OperationPlacement, transfer_bytes: int = 0) -> Placement:
    return Placement(
        kind="predicted",
        compute_units="all",
        chip="m1",
        operations=operations,
        segments=len({item.segment for item in operations}),
        transfers=int(transfer_bytes > 0),
        transfer_bytes=transfer_bytes,
        shares={},
    )


def predicted(*operations: OperationPlacement, transfer_bytes: int = 0, **engine: Any) -> Prediction:
    return predict(placement(*operations, transfer_bytes=transfer_bytes), chip(**engine))


def test_time_is_that_of_the_arithmetic_when_it_takes_longer() -> None:
    found = predicted(operation(macs=500_000_000, activation_bytes=1000))
    assert found.latency_ms == pytest.approx(1.0 + 0.1)  # 10^9 operations at 10^12 a second, and the start
    assert found.operators[0].bound == "compute"


def test_time_is_that_of_the_units_own_memory_when_values_fit_there() -> None:
    found = predicted(operation(activation_bytes=1024 * 1024))
    assert found.latency_ms == pytest.approx(1024 * 1024 / 100e6 + 0.1)
    assert found.operators[0].bytes == 0


def test_values_come_from_main_memory_when_they_do_not_fit() -> None:
    found = predicted(operation(activation_bytes=50_000_000))
    assert found.latency_ms == pytest.approx(1.0 + 0.1)
    assert (found.operators[0].bound, found.operators[0].bytes) == ("memory", 50_000_000)


def test_int8_is_faster_only_on_a_chip_with_a_path_for_it() -> None:
    integers = operation(macs=500_000_000, compute_dtype="int8")
    assert predicted(integers).latency_ms == pytest.approx(0.5 + 0.1)
    assert predicted(integers, gops_int8=None).latency_ms == pytest.approx(1.0 + 0.1)


def test_integers_move_half_of_the_bytes_that_are_declared_around_them() -> None:
    declared = {"activation_bytes": 100_000_000}
    assert predicted(operation(compute_dtype="int8", **declared)).latency_ms == pytest.approx(1.0 + 0.1)
    assert predicted(operation(**declared)).latency_ms == pytest.approx(2.0 + 0.1)


def test_float32_has_its_own_rate_on_the_processor() -> None:
    floats = operation(unit="cpu", macs=125_000_000, compute_dtype="float32")
    assert predicted(floats).latency_ms == pytest.approx(1.0 + 0.011)  # 250 million operations at 250 GFLOP/s


def test_activation_functions_cost_nothing_by_themselves() -> None:
    conv = operation(macs=500_000_000)
    assert predicted(conv, operation(1, type="relu", activation_bytes=10**9)).latency_ms == predicted(conv).latency_ms


def test_weights_are_fetched_ahead_on_the_neural_engine_only() -> None:
    work = [operation(macs=500_000_000), operation(1, weight_bytes=25_000_000)]
    assert predicted(*work).latency_ms == pytest.approx(1.0 + 0.1)  # half a millisecond of weights during the first
    on_cpu = [replace(item, preferred="cpu") for item in work]
    assert predicted(*on_cpu).latency_ms == pytest.approx(1.0 + 0.5 + 0.012)


def test_run_waits_for_its_weights_when_they_take_longer_than_its_work() -> None:
    found = predicted(operation(macs=50_000_000), operation(1, weight_bytes=50_000_000))
    assert found.latency_ms == pytest.approx(1.0 + 0.1)
    first, second = found.operators
    assert (first.time_ms, second.time_ms) == (pytest.approx(0.1 + 0.1), pytest.approx(0.9))
    assert (second.bound, second.bytes) == ("memory", 50_000_000)


def test_each_segment_is_started_once_when_the_file_interleaves_them() -> None:
    found = predicted(operation(0, segment=0), operation(1, "cpu", 1), operation(2, segment=0), operation(3, "cpu", 1))
    assert found.launch_ms == pytest.approx(0.1 + 0.01 + 2 * 0.001)
    assert [item.name for item in found.operators] == ["op_0", "op_1", "op_2", "op_3"]
    assert found.operators[0].bound == "launch"


def test_values_that_change_units_are_written_and_read() -> None:
    found = predicted(operation(), operation(1, "cpu", 1), transfer_bytes=25_000_000)
    assert found.transfer_ms == pytest.approx(1.0)
    assert found.latency_ms == pytest.approx(1.0 + 0.1 + 0.011)


def test_program_without_operations_takes_no_time() -> None:
    found = predicted()
    assert (found.latency_ms, found.transfer_ms, found.launch_ms, found.operators) == (0.0, 0.0, 0.0, ())


def test_wider_choice_of_units_is_never_slower_than_a_narrower_one() -> None:
    heavy = operation(macs=500_000_000)
    on_cpu = replace(heavy, preferred="cpu", compute_dtype="float32")
    placements: dict[ComputeUnits, Placement] = {
        "all": placement(on_cpu, operation(1, segment=1, activation_bytes=10**9)),
        "cpuAndNeuralEngine": placement(heavy),
        "cpuAndGPU": placement(on_cpu),
        "cpuOnly": placement(replace(on_cpu, macs=250_000_000)),
    }
    found = quickest(placements, chip())
    assert found["all"] == found["cpuAndNeuralEngine"] == predict(placements["cpuAndNeuralEngine"], chip())
    assert found["cpuAndGPU"] == found["cpuOnly"]
    assert found["cpuOnly"] == predict(placements["cpuOnly"], chip())


UNITS = st.sampled_from(("cpu", "gpu", "neural_engine"))
OPERATIONS = st.lists(
    st.builds(
        operation,
        unit=UNITS,
        segment=st.integers(0, 3),
        type=st.sampled_from(("conv", "relu", "matmul", "softmax")),
        compute_dtype=st.sampled_from(("float16", "float32", "int8", "none")),
        macs=st.integers(0, 10**10),
        weight_bytes=st.integers(0, 10**9),
        activation_bytes=st.integers(0, 10**9),
    ),
    max_size=8,
).map(
    lambda found: [
        replace(item, index=index, segment=item.segment + 4 * ("cpu", "gpu", "neural_engine").index(item.preferred))
        for index, item in enumerate(found)
    ]
)


@given(OPERATIONS, st.integers(0, 10**9))
def test_operators_and_transfers_add_up_to_the_whole(operations: list[OperationPlacement], transfers: int) -> None:
    found = predicted(*operations, transfer_bytes=transfers)
    assert sum(item.time_ms for item in found.operators) + found.transfer_ms == pytest.approx(found.latency_ms)
    assert all(item.time_ms >= 0 for item in found.operators)
    assert [item.name for item in found.operators] == [item.name for item in operations]
    if operations:
        assert sum(item.share for item in found.operators) <= 1 + 1e-9


@given(OPERATIONS, st.sampled_from(("macs", "weight_bytes", "activation_bytes")))
def test_more_work_never_takes_less_time(operations: list[OperationPlacement], what: str) -> None:
    more = [replace(item, **{what: getattr(item, what) * 2}) for item in operations]
    assert predicted(*more).latency_ms >= predicted(*operations).latency_ms * (1 - 1e-12)
