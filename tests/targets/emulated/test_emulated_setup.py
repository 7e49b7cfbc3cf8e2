"""Finding, fetching and building what emulation needs; what is said where a piece is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from edgekit.cli.main import run
from edgekit.errors import ToolError, UnsupportedError
from edgekit.targets import diagnose, load_device
from edgekit.targets.devices import packaged_targets
from edgekit.targets.emulated import build, fetch, setup, symbols, tools
from edgekit.targets.emulated.build import Build, compile_build
from edgekit.targets.emulated.cores import load_core
from edgekit.targets.emulated.fetch import RUNTIMES, Runtime, find_unpacked
from edgekit.targets.emulated.persona import make_persona
from edgekit.targets.emulated.setup import Toolchain, pieces, set_up, set_up_kind, toolchain

LITERT, EXECUTORCH, ONNXRUNTIME = RUNTIMES
HELP = "-plugin  QEMU_PLUGIN  [file=]<file>[,<argname>=<argvalue>]"
DEBIAN_13 = "qemu-aarch64 version 10.0.2 (Debian 1:10.0.2+ds-2)"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "emulated"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of programs there is."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("EDGEKIT_QEMU", raising=False)
    return folder


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    path.chmod(0o755)
    return path


def qemu(folder: Path, version: str, options: str = HELP) -> Path:
    said = f'case "$1" in --version) echo "{version}";; *) echo "{options}";; esac'
    return program(folder, "qemu-aarch64", said)


# What this machine has.


@pytest.mark.parametrize(
    "version", ["qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7)", "qemu-aarch64 version 10.0.0", "x version 7.0"]
)
def test_qemu_is_found_when_new_enough(programs: Path, version: str) -> None:
    path = qemu(programs, version)
    found = tools.find_qemu()
    assert found.path == path
    assert found.version == version.split()[2]
    assert not found.problem


@pytest.mark.parametrize(
    ("version", "options", "problem"),
    [
        ("qemu-aarch64 version 6.2.0 (Debian 1:6.2)", HELP, r"is version 6\.2\.0, 7\.0 or newer is needed"),
        (
            DEBIAN_13,
            "-L path",
            r"this qemu-aarch64 \(/.*, version 10\.0\.2\) was built without plugins.*: Debian 12's qemu-user package "
            r"has them.*or build QEMU with .*--enable-plugins; name another one .*variable EDGEKIT_QEMU",
        ),
        ("hello", HELP, r"does not say its version"),
    ],
)
def test_qemu_problem_names_the_way_out(programs: Path, version: str, options: str, problem: str) -> None:
    qemu(programs, version, options)
    found = tools.find_qemu()
    assert found.path is None
    assert re.search(problem, found.problem)


def test_qemu_problem_says_what_to_install_when_missing(programs: Path) -> None:
    assert "qemu-aarch64 is not installed: install the package that Debian and Ubuntu call qemu-user" in (
        tools.find_qemu().problem
    )
    program(programs, "apt-get", "exit 0")
    assert tools.find_qemu().problem.endswith("sudo apt-get install qemu-user")


def test_qemu_is_the_named_one_when_the_path_has_another(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu(programs, DEBIAN_13, "-L path")
    own = tmp_path / "build"
    own.mkdir()
    named = qemu(own, "qemu-aarch64 version 9.2.0")
    monkeypatch.setenv("EDGEKIT_QEMU", str(named))
    assert (tools.find_qemu().path, tools.find_qemu().version) == (named, "9.2.0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKIT_QEMU", "build/qemu-aarch64")
    assert tools.find_qemu().path == named  # a guest's own folder is another one
    monkeypatch.setenv("EDGEKIT_QEMU", "")
    assert "without plugins" in tools.find_qemu().problem


@pytest.mark.parametrize("named", ["missing", "no_program"])
def test_qemu_problem_names_the_variable_when_it_is_wrong(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    qemu(programs, "qemu-aarch64 version 7.2.22")
    (tmp_path / "no_program").touch()
    monkeypatch.setenv("EDGEKIT_QEMU", str(tmp_path / named))
    found = tools.find_qemu()
    assert found.path is None
    assert f"EDGEKIT_QEMU names {tmp_path / named}, which is no program" in found.problem


def test_every_way_to_a_guest_says_that_qemu_has_no_plugins(
    programs: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qemu(programs, DEBIAN_13, "-L path")
    said = "was built without plugins, which count instructions: Debian 12's qemu-user package has them"
    with pytest.raises(UnsupportedError, match=said):  # what a profile begins with
        toolchain()
    assert run(["targets", "doctor", "pixel-3a"]) == 2
    assert said in " ".join(capsys.readouterr().out.split())
    assert run(["targets", "setup", "emulated", "--offline"]) == 3
    assert said in " ".join(capsys.readouterr().err.split())


def test_qemu_problem_names_the_system_when_it_is_not_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.platform, "system", lambda: "Darwin")
    assert "runs on Linux only, this is Darwin" in tools.find_qemu().problem


def test_host_compiler_is_zig_when_there_is_no_other(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None)
    assert "pip install ziglang" in tools.find_host_compiler().problem
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: object())
    assert tools.find_host_compiler().command[1:] == ("-m", "ziglang", "cc", "-mcpu=baseline")
    program(programs, "cc", "exit 0")
    assert tools.find_host_compiler().command == (str(programs / "cc"),)


def test_sysroot_problem_names_the_library_that_lacks(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sysroot" / "lib"
    folder.mkdir(parents=True)
    for name in tools.GUEST_LIBRARIES:
        (folder / name).touch()
    monkeypatch.setattr(tools, "_USUAL_SYSROOTS", ())
    assert "were not found: " in tools.find_sysroot().problem
    program(programs, "aarch64-linux-gnu-g++", f"echo {folder}/../lib/libc.so.6")
    assert tools.find_sysroot().path == tmp_path / "sysroot"
    (folder / "libstdc++.so.6").unlink()
    assert f"({folder} lacks libstdc++.so.6)" in tools.find_sysroot().problem


def test_toolchain_error_names_every_piece_when_nothing_is_there(programs: Path, cache: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        toolchain()
    said = str(caught.value)
    for piece in ("qemu-aarch64 is not installed", "counting plugin is not compiled", "core simulator is not compiled"):
        assert piece in said
    assert "edgekit targets setup emulated" in said
    assert not cache.exists()


# Building.

GOOD = "int answer(void);\nint answer(void) { return 42; }\n"


@pytest.fixture
def native(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small tree of sources in the place of the packaged one."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    root = tmp_path / "targets"
    for name in ("plugin", "coresim"):
        (root / "native" / name).mkdir(parents=True)
    (root / "native" / "plugin" / "plugin.c").write_text('#include "marker.h"\n' + GOOD, encoding="ascii")
    (root / "native" / "coresim" / "main.c").write_text("int main(void) { return 0; }\n", encoding="ascii")
    (root / "native" / "marker.h").write_text("#define MARKER 5000\n", encoding="ascii")
    monkeypatch.setattr(build, "packaged_targets", lambda: root)
    return root / "native"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_build_is_made_once_and_again_when_a_source_or_header_changes(native: Path, cache: Path) -> None:
    first = compile_build(build.plugin_build(), ("gcc",))
    stamp = first.stat().st_mtime_ns
    assert compile_build(build.plugin_build(), ("gcc",)).stat().st_mtime_ns == stamp
    (native / "marker.h").write_text("#define MARKER 5001\n", encoding="ascii")
    second = compile_build(build.plugin_build(), ("gcc",))
    assert second != first
    assert names(cache / "built") == sorted([first.parent.name, second.parent.name])


def test_digest_differs_when_flags_do(native: Path, cache: Path) -> None:
    plugin = build.plugin_build()
    other = Build(name=plugin.name, folder=plugin.folder, sources=plugin.sources, before=("-O0",))
    assert other.digest() != plugin.digest()


def test_plugin_has_no_names_that_could_be_taken_for_qemus(native: Path, cache: Path) -> None:
    (native / "plugin" / "other.c").write_text("int helper(void);\nint helper(void) { return 1; }\n", encoding="ascii")
    made = compile_build(build.plugin_build(), ("gcc",))
    with made.open("rb") as file:
        names = {symbol.name for symbol in ELFFile(file).get_section_by_name(".dynsym").iter_symbols()}
    assert not names & {"helper", "answer"}


def test_build_error_names_the_line_and_the_log_and_leaves_nothing_behind(native: Path, cache: Path) -> None:
    (native / "plugin" / "plugin.c").write_text("int answer(void) { return fourty_two; }\n", encoding="ascii")
    with pytest.raises(ToolError, match=r"counting_plugin\.so does not compile: .*plugin\.c:1:.*fourty_two") as caught:
        compile_build(build.plugin_build(), ("gcc",))
    assert "fourty_two" in Path(caught.value.log or "").read_text(encoding="utf-8")
    assert names(cache / "built") == []


def test_build_error_is_clear_when_the_compiler_is_broken(native: Path, cache: Path, programs: Path) -> None:
    with pytest.raises(ToolError, match="could not be started"):
        compile_build(build.plugin_build(), (str(programs / "gcc"),))
    lazy = program(programs, "gcc", "exit 0")
    with pytest.raises(ToolError, match="does not compile"):
        compile_build(build.plugin_build(), (str(lazy),))
    assert names(cache / "built") == []


def test_build_error_is_clear_when_there_is_no_source(native: Path, cache: Path) -> None:
    (native / "coresim" / "main.c").unlink()
    with pytest.raises(ToolError, match=r"coresim has no source at .*coresim"):
        compile_build(build.coresim_build(), ("gcc",))


# Fetching: pip takes wheels from a folder, so that nothing leaves this machine.


def wheel(folder: Path, runtime: Runtime, version: str, files: dict[str, str]) -> Path:
    """Write a wheel that pip accepts, as the index holds them."""
    folder.mkdir(parents=True, exist_ok=True)
    package = runtime.distribution.replace("-", "_")
    path = folder / f"{package}-{version}-cp311-cp311-manylinux_2_27_aarch64.whl"
    meta = f"{package}-{version}.dist-info"
    files = files | {
        f"{meta}/METADATA": f"Metadata-Version: 2.1\nName: {runtime.distribution}\nVersion: {version}\n",
        f"{meta}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\n"
        "Tag: cp311-cp311-manylinux_2_27_aarch64\n",
    }
    lines = []
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(text)}")
            archive.writestr(name, text)
        archive.writestr(f"{meta}/RECORD", "\n".join([*lines, f"{meta}/RECORD,,", ""]))
    return path


LITERT_FILES = {
    "ai_edge_litert/libLiteRt.so": "kernels",
    "ai_edge_litert/libpywrap_litert_common.so": "names",
    "ai_edge_litert/interpreter.py": "not for the guest",
    "elsewhere/libLiteRt.so.py": "not for the guest",
}


@pytest.fixture
def index(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(fetch, "installed_version", lambda runtime: "9.9.9")
    return folder


def fetched(runtime: Runtime, *, offline: bool = False) -> tuple[fetch.Unpacked, list[str]]:
    said: list[str] = []
    return fetch.fetch(runtime, "9.9.9", said.append, offline=offline), said


def test_fetch_unpacks_only_what_the_guest_needs_and_says_so_before(index: Path, cache: Path) -> None:
    path = wheel(index, LITERT, "9.9.9", LITERT_FILES)
    unpacked, said = fetched(LITERT)
    assert sorted(file.name for file in unpacked.folder.iterdir()) == ["libLiteRt.so", "libpywrap_litert_common.so"]
    assert not (unpacked.root / "elsewhere").exists()
    assert said[0] == "fetching ai-edge-litert 9.9.9 for aarch64 with pip"
    assert unpacked.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert unpacked.sha256 in said[1]
    assert find_unpacked(LITERT) == unpacked


def test_fetch_is_repeatable_offline_once_done(index: Path, cache: Path) -> None:
    with pytest.raises(ToolError, match=r"ai-edge-litert 9\.9\.9 was not fetched before: .*once with a network"):
        fetched(LITERT, offline=True)
    wheel(index, LITERT, "9.9.9", LITERT_FILES)
    first, _ = fetched(LITERT)
    assert fetched(LITERT, offline=True) == (first, [])
    (first.folder / "libLiteRt.so").unlink()
    assert find_unpacked(LITERT) is None
    again, said = fetched(LITERT, offline=True)
    assert again == first
    assert len(said) == 1
    assert find_unpacked(LITERT) == first


@pytest.mark.parametrize("damage", ["wheel", "lock"])
def test_fetch_does_not_use_a_kept_wheel_when_it_is_damaged(index: Path, cache: Path, damage: str) -> None:
    wheel(index, LITERT, "9.9.9", LITERT_FILES)
    fetched(LITERT)
    folder = cache / "wheels" / "ai-edge-litert-9.9.9"
    damaged = next(folder.glob("*.whl")) if damage == "wheel" else folder / "wheel.json"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(ToolError, match="was not fetched before"):
        fetched(LITERT, offline=True)
    assert fetched(LITERT)[1][-1].startswith("fetched ai_edge_litert-9.9.9")


def test_fetch_gives_numbered_libraries_the_names_that_loaders_look_for(index: Path, cache: Path) -> None:
    wheel(index, ONNXRUNTIME, "9.9.9", {"onnxruntime/capi/libonnxruntime.so.9.9.9": "kernels"})
    unpacked, _ = fetched(ONNXRUNTIME)
    for name in ("libonnxruntime.so", "libonnxruntime.so.9"):
        assert (unpacked.folder / name).read_text(encoding="utf-8") == "kernels"


def test_fetch_error_names_version_and_platforms_when_there_is_no_wheel(index: Path, cache: Path) -> None:
    wheel(index, LITERT, "9.9.8", LITERT_FILES)
    with pytest.raises(ToolError, match=r"could not fetch ai-edge-litert 9\.9\.9 for aarch64 \(manylinux_2_28_aarch64"):
        fetched(LITERT)
    assert find_unpacked(LITERT) is None


def test_fetch_error_is_clear_when_the_wheel_is_laid_out_in_another_way(index: Path, cache: Path) -> None:
    wheel(index, LITERT, "9.9.9", {"litert_next/libLiteRt.so": "kernels"})
    with pytest.raises(ToolError, match="laid out in another way than edgekit knows"):
        fetched(LITERT)
    assert names(cache / "runtimes") == []


def test_fetch_refuses_a_wheel_that_is_not_the_pinned_one(index: Path, cache: Path) -> None:
    pinned = json.loads((packaged_targets() / "native" / "wheels.json").read_text(encoding="utf-8"))
    version = next(name for name in pinned if name.startswith("ai_edge_litert")).split("-")[1]
    wheel(index, LITERT, version, LITERT_FILES)
    with pytest.raises(ToolError, match=r"expected 853fc608.*nothing of it is used"):
        fetch.fetch(LITERT, version, lambda line: None, offline=False)
    assert not list(cache.rglob("*.whl"))


def test_pinned_wheels_are_those_of_the_pinned_packages() -> None:
    pinned = json.loads((packaged_targets() / "native" / "wheels.json").read_text(encoding="utf-8"))
    constraints = (packaged_targets().parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for runtime in RUNTIMES:
        version = next(line.split("==")[1] for line in constraints if line.startswith(f"{runtime.distribution}=="))
        assert any(name.startswith(f"{runtime.distribution.replace('-', '_')}-{version}-") for name in pinned)


# The whole.


def test_set_up_fetches_nothing_when_it_could_not_be_used(programs: Path, index: Path, cache: Path) -> None:
    wheel(index, LITERT, "9.9.9", LITERT_FILES)
    said: list[str] = []
    missing = set_up_kind(said.append)
    assert said == []
    assert any("qemu-aarch64 is not installed" in problem for problem in missing)
    assert any("aarch64-linux-gnu-g++ is not installed" in problem for problem in missing)
    assert not (cache / "wheels").exists()


def test_set_up_goes_on_with_the_others_when_one_runtime_fails(
    emulated_toolchain: Toolchain, native: Path, index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "installed_version", lambda runtime: "9.9.9" if runtime != EXECUTORCH else None)
    monkeypatch.setattr(build, "_linked_libraries", lambda runtime: ())
    wheel(index, LITERT, "9.9.9", LITERT_FILES)
    wheel(index, ONNXRUNTIME, "9.9.9", {"onnxruntime/capi/libonnxruntime.so.9.9.9": "kernels"})
    (native / "litert_runner.cc").write_text("int main() { return fourty_two; }\n", encoding="ascii")
    (native / "onnxruntime_runner.cc").write_text("int main() { return 0; }\n", encoding="ascii")
    said: list[str] = []
    ready = set_up(said.append)
    assert ready.runners.keys() == {"onnxruntime"}
    assert ready.libraries.keys() == {"litert", "onnxruntime"}
    assert any("litert_runner does not compile" in line and "fourty_two" in line for line in said)
    assert "executorch is not installed here, so its guest is left out" in said
    problems = [piece.problem for piece in pieces() if piece.problem]
    assert problems == [
        "the runner of ai-edge-litert 9.9.9 is not compiled: `edgekit targets setup emulated` compiles it"
    ]


def test_set_up_does_nothing_when_all_is_ready(emulated_toolchain: Toolchain) -> None:
    said: list[str] = []
    assert set_up(said.append, offline=True) == toolchain()
    assert [line for line in said if "is not installed here" not in line] == []


def test_set_up_leaves_the_names_of_functions_behind(
    emulated_toolchain: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = set_up(lambda line: None, offline=True)
    monkeypatch.setattr(symbols, "read_library", lambda path: pytest.fail(f"{path} was read again"))
    for folder in ready.libraries["litert"]:
        library = folder / "libLiteRt.so"
        found = symbols.library_functions(library, twin=symbols.find_twin(library))
        assert "xnn_run_operator_with_index" in found.names


def test_second_set_up_waits_for_the_first(emulated_toolchain: Toolchain) -> None:
    waits = threading.Event()
    said: list[str] = []

    def report(line: str) -> None:
        said.append(line)
        waits.set()

    with setup._alone(lambda line: None):
        second = threading.Thread(target=set_up, args=(report,), kwargs={"offline": True})
        second.start()
        assert waits.wait(20)
        assert said == ["another set-up is running: waiting for it"]
        assert second.is_alive()
    second.join(60)
    assert not second.is_alive()


def test_key_differs_when_the_guests_c_library_does(tmp_path: Path) -> None:
    keys = set()
    for text in ("2.36", "2.39"):
        folder = tmp_path / text / "lib" / "aarch64-linux-gnu"
        folder.mkdir(parents=True)
        (folder / "libc.so.6").write_text(text, encoding="ascii")
        keys.add(setup._key("7.2.22", tmp_path / text, (), ()))
    assert len(keys) == 2


def test_every_runner_starts_on_the_guest(emulated_toolchain: Toolchain) -> None:
    persona = make_persona(load_core("cortex-a76"), emulated_toolchain)
    guest = [emulated_toolchain.qemu, "-L", persona.root, "-cpu", persona.qemu_cpu]
    assert emulated_toolchain.runners
    for name, runner in emulated_toolchain.runners.items():
        libraries = ":".join(map(str, emulated_toolchain.libraries[name]))
        command = [*guest, "-E", f"LD_LIBRARY_PATH={libraries}", runner]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert "--model" in done.stdout + done.stderr, (name, done)
        assert done.returncode > 0


def test_doctor_says_how_to_get_what_is_missing(
    programs: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = load_device(packaged_targets() / "pixel-3a.yaml")
    found = diagnose(device)
    assert not found.usable
    assert found.facts["emulated cores"] == "Kryo 360 Gold at 2000 MHz (gold), as the table cortex-a75"
    assert any("qemu-aarch64 is not installed" in problem for problem in found.problems)
    assert run(["targets", "doctor", "pixel-3a"]) == 2
    assert "qemu-aarch64 is not installed" in capsys.readouterr().out


def test_doctor_says_usable_when_all_is_there(emulated_toolchain: Toolchain) -> None:
    found = diagnose(load_device(packaged_targets() / "pixel-3a.yaml"))
    assert found.usable
    assert found.facts["qemu-aarch64"].startswith(emulated_toolchain.qemu_version)


def test_setup_command_tells_success_from_failure_and_unknown_kinds(
    programs: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["targets", "setup", "emulated", "--offline"]) == 3
    assert "still missing: qemu-aarch64 is not installed" in capsys.readouterr().err
    assert run(["targets", "setup", "host"]) == 0
    assert "needs no set-up" in capsys.readouterr().err
    assert run(["targets", "setup", "emulatd"]) == 2
    assert "Did you mean 'emulated'?" in capsys.readouterr().err


def test_light_modules_import_nothing_heavy() -> None:
    code = (
        "import sys; import edgekit.targets.emulated.spec, edgekit.targets.emulated.machine; "
        "sys.exit(str({'numpy', 'capstone', 'elftools', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"
