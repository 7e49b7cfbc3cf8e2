from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.cli.main import run
from edgekit.errors import UnsupportedError, UserInputError
from edgekit.targets.devices import packaged_targets
from edgekit.targets.emulated.guest_root import guest_root
from edgekit.targets.emulated.setup import toolchain

SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include "marker.h"
__attribute__((noinline)) void spin(long rounds) {
    __asm__ volatile("1: subs %0, %0, #1\\n b.ne 1b\\n" : "+r"(rounds));
}
int main(int count, char **values) {
    const char *variable = getenv("ROUNDS");
    const int is_marked = count > 1 && atoi(values[1]);
    printf("rounds %s\\n", variable ? variable : "none");
    if (is_marked) edgekit_mark(EDGEKIT_STEADY_BEGIN, 0, 0);
    spin(variable ? atol(variable) : 1000);
    if (is_marked && count < 3) edgekit_mark(EDGEKIT_STEADY_END, 0, 0);
    return count > 3 ? atoi(values[3]) : 0;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("aarch64-linux-gnu-gcc")
    if compiler is None:
        pytest.skip("no cross compiler: aarch64-linux-gnu-gcc is not installed")
    try:
        toolchain()
    except UnsupportedError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("program")
    (folder / "spin.c").write_text(SOURCE)
    include = f"-I{packaged_targets() / 'native'}"
    subprocess.run([compiler, "-O1", include, "-o", str(folder / "spin"), str(folder / "spin.c")], check=True)
    return folder / "spin"


def emulate(*arguments: object) -> int:
    return run(["emulate", *map(str, arguments)])


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_marked_program_is_counted_between_its_markers(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    totals = []
    for rounds in (1000, 5000):
        options = ("--target", "raspberry-pi-4", "--model", "counts", "--json", "--env", f"ROUNDS={rounds}")
        assert emulate(*options, "--", program, 1) == 0
        found = document(capsys)
        assert (found["kind"], found["region"], found["core"]) == ("emulated_program", "marked", "cortex-a72")
        assert found["stdout"] == f"rounds {rounds}\n"
        assert found["latency_ms"] is None
        totals.append(found["instructions"])
    assert totals[1] - totals[0] == 2 * 4000


@pytest.mark.parametrize("model", ["static", "trace"])
def test_a_model_gives_the_time_of_a_loop_within_its_band(
    model: str, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--target", "raspberry-pi-4", "--model", model, "--json", "--env", "ROUNDS=100000")
    assert emulate(*options, "--", program, 1) == 0
    found = document(capsys)
    latency = found["latency_ms"]
    assert isinstance(latency, dict)
    assert isinstance(found["cycles"], float)
    assert 100_000 <= found["cycles"] < 210_000  # one round a cycle, or its two instructions one after the other
    assert latency["low"] < latency["median"] == pytest.approx(found["cycles"] / 1.5e6, rel=0.02)
    assert latency["basis"]


def test_tables_show_classes_and_functions_and_notes_go_to_standard_error(
    program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emulate("--target", "pixel-3a", "--model", "counts", "--", program) == 0
    shown = capsys.readouterr()
    assert "whole" in shown.out
    assert "spin" in shown.out
    assert "branch" in shown.out
    assert "rounds none" in shown.err
    assert "sets no markers" in shown.err


def test_a_root_shows_its_files_under_the_personas_processor(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    (root / "opt").mkdir(parents=True)
    (root / "lib").symlink_to("/usr/aarch64-linux-gnu/lib")
    shutil.copy(program, root / "opt" / "spin")
    options = ("--target", "raspberry-pi-4", "--model", "counts", "--json", "--root", root)
    assert emulate(*options, "--", "/opt/spin", 1) == 0
    assert document(capsys)["region"] == "marked"


def test_roots_are_merged_with_the_persona_on_top(tmp_path: Path) -> None:
    persona, user = tmp_path / "persona", tmp_path / "user"
    for path, text in {
        persona / "proc/cpuinfo": "phone",
        persona / "sys/x": "phone",
        persona / "etc/ld.so.cache": "",
        user / "proc/cpuinfo": "laptop",
        user / "etc/passwd": "root",
        user / "usr/bin/tool": "tool",
        user / "lib/ld-linux-aarch64.so.1": "loader",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    merged = guest_root(persona, user, tmp_path / "merged")
    assert (merged / "proc/cpuinfo").read_text() == "phone"
    assert (merged / "usr/bin/tool").read_text() == "tool"
    assert sorted(entry.name for entry in (merged / "etc").iterdir()) == ["ld.so.cache", "passwd"]
    assert (merged / "lib").is_symlink()


def test_a_root_without_a_loader_gets_the_personas(tmp_path: Path) -> None:
    persona, user = tmp_path / "persona", tmp_path / "user"
    for path in (
        persona / "proc/cpuinfo",
        persona / "sys/x",
        persona / "lib/ld-linux-aarch64.so.1",
        user / "lib/mine.so",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    merged = guest_root(persona, user, tmp_path / "merged")
    assert sorted(entry.name for entry in (merged / "lib").iterdir()) == ["ld-linux-aarch64.so.1", "mine.so"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserInputError, match=r"--root: .*is empty"):
        guest_root(persona, tmp_path / "empty", tmp_path / "again")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "host", "--", "SPIN"), "expected an emulated target; 'host' is of the kind 'host'"),
        (("--target", "pixel-3b", "--", "SPIN"), "unknown target 'pixel-3b'. Did you mean"),
        (("--target", "pixel-3a", "--", "/nowhere/program"), "expected an aarch64 program; there is none at /nowhere"),
        (("--target", "pixel-3a", "--", "HERE"), "received one for"),
        (("--target", "pixel-3a", "--", "SCRIPT"), "For a script, name its interpreter"),
        (("--target", "pixel-3a", "--env", "NAME", "--", "SPIN"), "--env: expected NAME=VALUE; received 'NAME'"),
        (("--target", "pixel-3a", "--library-path", "/nowhere", "--", "SPIN"), "--library-path: expected a folder"),
        (("--target", "pixel-3a", "--root", "/nowhere", "--", "SPIN"), "--root: expected a folder"),
    ],
)
def test_wrong_input_is_refused_with_a_message(
    arguments: tuple[str, ...], message: str, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = str(Path(sys.executable).resolve())
    names = {"SPIN": str(program), "HERE": here, "SCRIPT": str(program.with_name("spin.c"))}
    assert emulate(*(names.get(one, one) for one in arguments)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ((), (0, 0, 5), "ended with status 5 on the guest"),
        ((), (1, 0), "must set STEADY_END too"),
        (
            ("--env", "ROUNDS=100000000000", "--limit-instructions", "50000000"),
            (1,),
            "limit of 50,000,000 instructions",
        ),
    ],
)
def test_a_program_that_fails_is_a_tool_error(
    options: tuple[str, ...],
    arguments: tuple[int, ...],
    message: str,
    program: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert emulate("--target", "pixel-3a", "--model", "counts", *options, "--", program, *arguments) == 3
    assert message in capsys.readouterr().err
