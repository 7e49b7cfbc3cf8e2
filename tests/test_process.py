"""Children: structured answers, logs, limits, and no survivors."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from process_entries import Answer, Ask

from edgekit import errors
from edgekit.process import run_child


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)


def _run(name, tmp_path, request=None, **options):
    return run_child(
        f"process_entries:{name}", request or Ask(21), Answer, stage="test", log=tmp_path / "log.txt", **options
    )


def _alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def _wait_for(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_child_answers_with_a_record_and_its_noise_goes_to_the_log(tmp_path, capfd):
    events = []
    assert _run("double", tmp_path, on_event=events.append) == Answer(42)
    assert "chatter" in (tmp_path / "log.txt").read_text()
    assert capfd.readouterr() == ("", "")
    assert events == [{"type": "progress", "step": 1}]


def test_edgekits_own_error_comes_back_as_itself(tmp_path):
    with pytest.raises(errors.DataError, match="expected an even number, received 21"):
        _run("refuse", tmp_path)
    with pytest.raises(errors.UnsupportedError, match=r"this is not supported: that\. Instead: the other"):
        _run("unsupported", tmp_path)


def test_any_other_error_of_a_library_becomes_a_tool_error_with_the_traceback_in_the_log(tmp_path):
    with pytest.raises(errors.ToolError, match=r"\[test\] Pydantic\w+: .* \(log: .*log.txt\)"):
        run_child("process_entries:library_fails", Ask(1), Answer, stage="test", log=tmp_path / "log.txt")
    assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_error_of_the_users_own_code_is_wrong_input_and_names_the_line(tmp_path):
    with pytest.raises(errors.UserInputError, match=r"entries\.py:\d+ \(`raise KeyError\(.missing.\)`\) raised"):
        _run("stumble", tmp_path)
    assert "Traceback" in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize(("name", "message"), [("abort", "ended by SIGABRT"), ("leave", "exited with status 7")])
def test_death_without_an_answer_is_a_crash(tmp_path, name, message):
    with pytest.raises(errors.StageCrashError, match=message):
        _run(name, tmp_path)


def test_missing_entry_is_a_tool_error(tmp_path):
    with pytest.raises(errors.ToolError, match="names nothing callable"):
        _run("no_such_function", tmp_path)


def test_hanging_child_is_stopped_with_everything_it_started(tmp_path):
    with pytest.raises(errors.StageTimeoutError, match=r"ran past its limit of 3 s"):
        _run("hang", tmp_path, Ask(0, str(tmp_path / "pids")), timeout_s=3)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert _wait_for(lambda: not any(map(_alive, pids)), 10)


def test_children_die_with_a_killed_parent(tmp_path):
    script = textwrap.dedent(f"""
        from pathlib import Path
        from process_entries import Answer, Ask
        from edgekit.process import run_child
        ask = Ask(0, {str(tmp_path / "pids")!r})
        run_child("process_entries:hang", ask, Answer, stage="t", log=Path({str(tmp_path / "l")!r}))
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parent)
    assert _wait_for(lambda: (tmp_path / "pids").is_file() and len((tmp_path / "pids").read_text().split()) == 2)
    child, grandchild = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert _wait_for(lambda: not _alive(child), 10)
    os.kill(grandchild, signal.SIGKILL)
