from __future__ import annotations

from pathlib import Path

import fake_sessions
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.profile.loading import Load, init_cold_ms, init_ms, timed_load, timed_open


def test_load_is_the_runtimes_own_time_when_the_session_tells_it(tmp_path: Path) -> None:
    artifact = fake_sessions.write_artifact(tmp_path / "m.json", load_ms=0.001)
    load = timed_load(fake_sessions.open_session, artifact, 1)
    assert load.runtime_ms == 0.001
    assert load.wall_ms > 0.001


def test_load_is_the_whole_opening_when_the_session_does_nothing_else(tmp_path: Path) -> None:
    session, load = timed_open(fake_sessions.open_session, fake_sessions.write_artifact(tmp_path / "m.json"), 1)
    assert load.runtime_ms == load.wall_ms > 0
    assert not session.closed  # type: ignore[attr-defined]


LOADS = st.tuples(st.floats(0.1, 100), st.floats(0, 100)).map(lambda t: Load(wall_ms=t[0] + t[1], runtime_ms=t[0]))


@given(LOADS, st.lists(LOADS, min_size=1, max_size=5))
def test_cold_load_lies_between_the_runtimes_time_and_the_whole(cold: Load, warm: list[Load]) -> None:
    found = init_cold_ms(cold, warm)
    assert cold.runtime_ms <= found <= cold.wall_ms + 1e-9
    assert min(load.runtime_ms for load in warm) <= init_ms(warm) <= max(load.runtime_ms for load in warm)


def test_cold_load_holds_the_wait_for_the_disk_whoever_waits() -> None:
    warm = [Load(wall_ms=30.0, runtime_ms=10.0)]
    edgekit_waited = Load(wall_ms=80.0, runtime_ms=10.0)
    runtime_waited = Load(wall_ms=80.0, runtime_ms=60.0)
    assert init_cold_ms(edgekit_waited, warm) == pytest.approx(60.0)
    assert init_cold_ms(runtime_waited, warm) == pytest.approx(60.0)
