"""The stage cache: found again, never half-written, safe against cut-offs."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit.errors import OutputError
from edgekit.store import StageCache, stage_key
from edgekit.store.build_folder import locked


@dataclass(frozen=True)
class Made:
    path: Path
    number: int


@pytest.fixture
def cache(tmp_path: Path) -> StageCache:
    return StageCache(tmp_path / "cache")


def _make(cache: StageCache, key: str, number: int = 1) -> Made:
    with cache.producing(key, anew=False) as workspace:
        (workspace.out / "file.bin").write_bytes(b"x" * number)
        return cache.commit("stage:a", key, Made(workspace.out / "file.bin", number), {"n": number})


def test_entry_is_found_again_with_its_paths(cache):
    made = _make(cache, "k", 3)
    assert made.path.read_bytes() == b"xxx"
    assert cache.find("stage:a", "k", Made) == made
    assert not (cache.root / "work" / "k").exists()


def test_entry_is_not_found_when_the_stage_did_not_finish(cache):
    with pytest.raises(RuntimeError, match="cut off"), cache.producing("k", anew=False) as workspace:
        (workspace.out / "half.bin").write_bytes(b"half")
        (workspace.scratch / "checkpoint").write_text("step 5")
        raise RuntimeError("cut off")
    assert cache.find("stage:a", "k", Made) is None
    with cache.producing("k", anew=False) as workspace:
        assert not (workspace.out / "half.bin").exists()
        assert (workspace.scratch / "checkpoint").read_text() == "step 5"


def test_scratch_is_thrown_away_when_work_is_done_anew(cache):
    with cache.producing("k", anew=False) as workspace:
        (workspace.scratch / "checkpoint").write_text("step 5")
    with cache.producing("k", anew=True) as workspace:
        assert list(workspace.scratch.iterdir()) == []


def test_entry_is_replaced_when_made_anew(cache):
    _make(cache, "k", 1)
    assert _make(cache, "k", 2).path.read_bytes() == b"xx"


def test_key_changes_with_the_stage_and_with_what_it_reads():
    keys = {stage_key("a", {"x": 1}), stage_key("a", {"x": 2}), stage_key("b", {"x": 1}), stage_key("a", {"y": 1})}
    assert len(keys) == 4
    assert stage_key("a", {"x": 1, "y": 2}) == stage_key("a", {"y": 2, "x": 1})


def test_killed_producer_leaves_no_entry_and_no_lock(cache, tmp_path):
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from edgekit.store import StageCache
        with StageCache(Path({str(cache.root)!r})).producing("k", anew=False) as workspace:
            (workspace.out / "file.bin").write_bytes(b"half")
            Path({str(tmp_path / "ready")!r}).touch()
            time.sleep(60)
    """)
    child = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 30
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert cache.find("stage:a", "k", Made) is None
    assert _make(cache, "k", 2).path.read_bytes() == b"xx"


def test_build_folder_is_refused_when_another_build_holds_it(tmp_path):
    with locked(tmp_path / "b"), pytest.raises(OutputError, match="another build is writing"), locked(tmp_path / "b"):
        pass


def test_build_folder_is_free_again_after_the_build(tmp_path):
    with locked(tmp_path / "b"):
        pass
    with locked(tmp_path / "b") as folder:
        assert folder.manifest == tmp_path / "b" / "manifest.json"


def test_build_folder_is_refused_when_a_file_is_in_the_way(tmp_path):
    (tmp_path / "b").write_text("a file")
    with pytest.raises(OutputError, match="expected a folder"), locked(tmp_path / "b"):
        pass
