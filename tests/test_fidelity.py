"""The fidelity benchmark's own arithmetic: a wrong error would be quoted with every estimate."""

from pathlib import Path

import a64_code as a64
import pytest

from benchmarks.fidelity import memory
from benchmarks.fidelity.errors import Estimate, compare, summary
from benchmarks.fidelity.ncnn.networks import NETWORKS
from benchmarks.fidelity.predictions import placed_core
from benchmarks.fidelity.rows import ANCHORS, ENGINES, Row, published


def _row(network: str, published_ms: float) -> Row:
    return Row(
        engine="ncnn", device="board", target="board", network=network, published_ms=published_ms, standing="held out"
    )


def test_compare_scales_by_the_anchor_and_leaves_the_anchor_out_when_anchored() -> None:
    rows = [_row("mobilenet", 100.0), _row("resnet18", 300.0)]
    predicted = {rows[0].key: 80.0, rows[1].key: 200.0}
    found = compare(rows, predicted, {"board": "core"}, "trace")
    errors = {(each.network, each.anchored): round(each.error, 4) for each in found}
    assert errors == {("mobilenet", False): -0.2, ("resnet18", False): -0.3333, ("resnet18", True): -0.1667}


def test_compare_has_no_anchored_rows_when_the_anchor_has_no_estimate() -> None:
    rows = [_row("mobilenet", 100.0), _row("resnet18", 300.0)]
    found = compare(rows, {rows[1].key: 200.0}, {"board": "core"}, "trace")
    assert [each.anchored for each in found] == [False]


def test_summary_takes_absolute_errors_when_signs_differ() -> None:
    def estimate(ms: float) -> Estimate:
        return Estimate(
            engine="ncnn", device="board", core="core", network="n", layer="trace", anchored=False,
            standing="held out", published_ms=100.0, estimate_ms=ms,
        )  # fmt: skip

    found = summary([estimate(80.0), estimate(110.0), estimate(100.0)])
    assert (found["median"], found["max"], found["mean_signed"]) == (0.1, 0.2, -0.0333)


# Layers, blobs and millions of multiply-accumulates of the files that ncnn's benchmark reads.
@pytest.mark.parametrize(
    ("name", "layers", "blobs", "million_macs"),
    [
        ("mobilenet", 31, 31, 568.7),
        ("mobilenet_int8", 31, 31, 568.7),
        ("mobilenet_v2", 77, 87, 313.6),
        ("mobilenet_v3", 161, 179, 245.6),
        ("squeezenet", 48, 56, 418.5),
        ("squeezenet_int8", 48, 56, 418.5),
        ("resnet18", 50, 58, 1826.9),
        ("resnet18_int8", 50, 58, 1826.9),
    ],
)
def test_network_has_the_published_size_when_written(name: str, layers: int, blobs: int, million_macs: float) -> None:
    network = NETWORKS[name]()
    magic, sizes, *lines = network.text().splitlines()
    assert (magic, sizes) == ("7767517", f"{layers} {blobs}")
    assert len(lines) == layers
    assert network.macs / 1e6 == pytest.approx(million_macs, abs=0.05)


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_name_a_device_with_a_core_table_and_hold_an_anchor_each(engine: str) -> None:
    rows = published(engine)
    for target in {row.target for row in rows}:
        assert placed_core(target).place.clock_mhz >= 1000
    assert {row.device for row in rows} == {row.device for row in rows if row.network == ANCHORS[engine]}


def test_held_out_rows_are_most_rows_and_whole_devices() -> None:
    rows = [row for engine in ENGINES for row in published(engine)]
    seen = [row for row in rows if row.standing == "development"]
    assert [(row.device, row.network) for row in seen] == [
        ("pixel", "mobilenet_v1"),
        ("pixel-3a", "mobilenet_v1"),
        ("raspberry-pi-3b-plus", "mobilenet"),
        ("raspberry-pi-3b-plus", "mobilenet_int8"),
        ("raspberry-pi-4", "mobilenet"),
        ("raspberry-pi-4", "mobilenet_int8"),
        ("rk3588s", "mobilenet"),
        ("rk3588s", "mobilenet_int8"),
    ]
    assert len(rows) > 100


def test_memory_loops_copy_at_the_measured_rate_when_simulated(tmp_path: Path) -> None:
    found = memory.measure(a64.coresim_program())["rows"]
    assert len(found) == 8
    assert {row["target"]: row["errors"]["copy"] for row in found if abs(row["errors"]["copy"]) > 0.15} == {}
    assert {row["target"]: row["errors"]["latency"] for row in found if abs(row["errors"]["latency"]) > 0.15} == {}
