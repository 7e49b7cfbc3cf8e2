from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import fake_sessions
import numpy as np
import pytest

from edgekit.errors import ArtifactError
from edgekit.profile import measure as measure_module
from edgekit.profile import memory as memory_module
from edgekit.profile.affinity import available_cpus, choose_cpus, pinned
from edgekit.profile.feed import first_sample, generated_inputs
from edgekit.profile.measure import garbage_collection_off, measure, time_runs
from edgekit.profile.memory import PeakMemory, release_free_memory, resident_bytes
from edgekit.profile.page_cache import drop_from_page_cache
from edgekit.records import Quantization, TensorSpec

MIB = 1 << 20


def feed(session: object) -> list[np.ndarray]:
    return [np.ones((1, 4), np.float32)]


def test_measure_runs_as_often_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[fake_sessions.FakeSession] = []

    def remember(path: Path, num_threads: int) -> fake_sessions.FakeSession:
        opened.append(fake_sessions.open_session(path, num_threads))
        return opened[-1]

    artifact = fake_sessions.write_artifact(tmp_path / "m.json")
    found = measure(remember, artifact, feed, num_threads=3, num_runs=7, warmup_runs=4)
    assert len(found.latency_ms.samples) == 7
    assert [len(session.batches) for session in opened] == [0, 0, 0, 0, 1 + 4 + 7]
    assert all(session.closed for session in opened)
    assert found.runtime.delegates == ("3 threads",)


def test_measure_notes_a_noisy_machine(tmp_path: Path) -> None:
    waits = iter([0.0] * 100)
    session = fake_sessions.FakeSession({}, 1)
    delays = iter([0.0] * 2 + [0.001, 0.004, 0.002, 0.008, 0.001, 0.006])

    def uneven() -> None:
        time.sleep(next(delays, next(waits)))

    session.prepare = lambda inputs: uneven  # type: ignore[method-assign, assignment]
    artifact = fake_sessions.write_artifact(tmp_path / "m.json")
    found = measure(lambda *_: session, artifact, feed, num_threads=1, num_runs=6, warmup_runs=1)
    assert any(note.startswith("noisy: ") for note in found.notes)


def test_time_runs_measures_each_run() -> None:
    waits = iter([0.002, 0.02, 0.002])
    times = time_runs(lambda: time.sleep(next(waits)), 3)
    assert len(times) == 3
    assert times[1] > 20.0
    assert min(times[0], times[2]) < 20.0


def test_garbage_collection_is_off_inside_and_restored() -> None:
    with garbage_collection_off():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with garbage_collection_off():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("kernel", [True, False])
def test_peak_memory_sees_what_was_taken_and_freed(monkeypatch: pytest.MonkeyPatch, kernel: bool) -> None:
    if not kernel:
        monkeypatch.setattr(memory_module, "_CLEAR_REFS", Path("/nonexistent/clear_refs"))
    release_free_memory()
    with PeakMemory() as memory:
        block = bytearray(64 * MIB)
        time.sleep(0.05)
        del block
    assert memory.method == ("kernel high-water mark" if kernel else "sampled every 1 ms")
    assert memory.sampled is not kernel
    assert memory.peak - memory.baseline == pytest.approx(64 * MIB, abs=4 * MIB)
    assert resident_bytes() - memory.baseline < 8 * MIB


def test_peak_memory_forgets_earlier_peaks() -> None:
    bytearray(128 * MIB)
    with PeakMemory() as memory:
        pass
    assert memory.peak - memory.baseline < 8 * MIB


def test_peak_memory_samples_when_the_kernel_ignores_the_reset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory_module, "_CLEAR_REFS", tmp_path / "clear_refs")  # takes the write, resets nothing
    bytearray(128 * MIB)  # the old mark stays far above
    with PeakMemory() as memory:
        pass
    assert memory.method.startswith("sampled")
    assert memory.peak - memory.baseline < 8 * MIB


def test_pinned_restores_the_affinity() -> None:
    before = os.sched_getaffinity(0)
    with pinned(1) as cpus:
        assert os.sched_getaffinity(0) == set(cpus)
        assert len(cpus) == 1
    assert os.sched_getaffinity(0) == before


def test_choose_cpus_takes_fast_cores_and_whole_cores_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # cores 0-3 little, 4-7 big; 6 and 7 are two threads of one core
    for cpu in range(8):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "cpu_capacity").write_text("1024" if cpu >= 4 else "400")
        (topology / "core_id").write_text(str(6 if cpu == 7 else cpu))
        (topology / "physical_package_id").write_text("0")
    monkeypatch.setattr("edgekit.profile.affinity._CPUS", tmp_path)
    assert choose_cpus(1, range(8)) == (7,)
    assert choose_cpus(3, range(8)) == (4, 5, 7)
    assert choose_cpus(8, range(8)) == tuple(range(8))
    assert choose_cpus(2, [0, 1]) == (0, 1)


def test_available_cpus_are_those_of_the_process() -> None:
    assert set(available_cpus()) == os.sched_getaffinity(0)


def test_drop_from_page_cache_takes_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "model.mlpackage" / "Data").mkdir(parents=True)
    (tmp_path / "model.mlpackage" / "Data" / "weights.bin").write_bytes(b"x" * 9000)
    assert drop_from_page_cache(tmp_path / "model.mlpackage")
    assert drop_from_page_cache(tmp_path / "model.mlpackage" / "Data" / "weights.bin")


def test_generated_inputs_follow_their_specs() -> None:
    specs = [
        TensorSpec(name="image", dtype="float32", shape=(None, 3, 2, 2)),
        TensorSpec(name="tokens", dtype="int64", shape=(1, 5)),
        TensorSpec(name="mask", dtype="bool", shape=(1, 5)),
        TensorSpec(name="scale", dtype="float32", shape=()),
    ]
    image, tokens, mask, scale = generated_inputs(specs, seed=4)
    assert (image.shape, image.dtype) == ((1, 3, 2, 2), np.float32)
    assert np.abs(image).max() <= 1
    assert np.ptp(image) > 0
    assert (tokens.dtype, set(tokens.ravel().tolist()) <= {0, 1}) == (np.int64, True)
    assert mask.all()
    assert scale.shape == ()
    np.testing.assert_array_equal(image, generated_inputs(specs, seed=4)[0])


def test_first_sample_keeps_the_batch_axis_and_names_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    np.savez(path, input_0=np.arange(6.0).reshape(3, 2), label=np.arange(3))
    np.testing.assert_array_equal(first_sample(path, 1)[0], [[0.0, 1.0]])
    with pytest.raises(ArtifactError, match=r"expected input_0, input_1 .*; received input_0, label"):
        first_sample(path, 2)


def test_time_runs_reports_progress_when_runs_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[dict[str, object]] = []
    monkeypatch.setattr(measure_module, "emit", events.append)
    time_runs(lambda: None, 5)
    assert events == []
    monkeypatch.setattr(measure_module, "_REPORT_EVERY_NS", 0)
    time_runs(lambda: None, 5)
    assert [(event["step"], event["steps"]) for event in events] == [(step, 5) for step in range(1, 6)]


def test_generated_inputs_are_real_numbers_when_the_tensor_is_quantized() -> None:
    quantization = Quantization(scale=(0.1,), zero_point=(3,))
    spec = TensorSpec(name="image", dtype="int8", shape=(1, 64), quantization=quantization)
    same = TensorSpec(name="image", dtype="float32", shape=(1, 64))
    (quantized,), (real,) = generated_inputs([spec], seed=1), generated_inputs([same], seed=1)
    np.testing.assert_array_equal(quantized, real)
