"""Getting there and back: what goes wrong on the way, and that nothing stays on the other side."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ssh_server import SshServer, free_port, make_key

from edgekit.errors import MissingToolError, StageTimeoutError, TargetError, ToolError
from edgekit.targets.ssh.agent import Gone, receive
from edgekit.targets.ssh.machine import diagnose_ssh
from edgekit.targets.ssh.transport import RemoteCommand, run_remotely, ssh_command


def command(script: str, *results: str, timeout_s: float = 30.0, **files: bytes) -> RemoteCommand:
    given = [("script.py", script.encode()), *files.items()]
    return RemoteCommand(files=given, arguments=("script.py",), results=results, timeout_s=timeout_s)


def test_files_arrive_and_results_come_back_behind_a_chatty_shell(ssh_server: SshServer) -> None:
    big = os.urandom(3_000_000)
    script = "print('working'); open('copy', 'wb').write(open('big', 'rb').read()[::-1])"
    answer = run_remotely(ssh_server.device(), command(script, "copy", "never-written", big=big))
    assert (answer.status, answer.log) == (0, "working")
    assert answer.results == {"copy": big[::-1]}
    assert ssh_server.left_behind() == []


def test_failure_over_there_comes_back_with_its_status_and_words(ssh_server: SshServer) -> None:
    answer = run_remotely(ssh_server.device(), command("import sys; sys.exit('no such luck')"))
    assert (answer.status, answer.log) == (1, "no such luck")
    assert ssh_server.left_behind() == []


def test_program_and_its_children_end_when_the_time_is_up(ssh_server: SshServer, tmp_path: Path) -> None:
    script = (
        "import os, pathlib, subprocess, tempfile\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "open(os.path.join(tempfile.gettempdir(), 'scratch'), 'w').close()\n"
        "child.wait()\n"
    )
    with pytest.raises(StageTimeoutError, match="box: the measurement ran past its limit"):
        run_remotely(ssh_server.device(), command(script, timeout_s=1.5))
    assert has_ended(int((tmp_path / "pid").read_text()))
    assert ssh_server.left_behind() == []


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind_when_we_are_killed(ssh_server: SshServer, tmp_path: Path, sign: signal.Signals) -> None:
    started = tmp_path / "pid"
    remote = f"import os, pathlib, time; pathlib.Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(600)"
    ours = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background shell ignores it
        "from edgekit.targets.ssh.spec import SshDevice\n"
        "from edgekit.targets.ssh.transport import RemoteCommand, run_remotely\n"
        f"device = SshDevice.model_validate_json({ssh_server.device().model_dump_json()!r})\n"
        f"files = [('script.py', {remote.encode()!r})]\n"
        "run_remotely(device, RemoteCommand(files=files, arguments=['script.py'], results=[], timeout_s=600))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", ours], stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for(lambda: started.exists() and started.read_text())
    pid = int(started.read_text())
    assert ssh_server.left_behind() != []
    process.send_signal(sign)
    process.wait(20)
    wait_for(lambda: has_ended(pid) and not ssh_server.left_behind())


def test_unreachable_machine_is_said_to_be_when_nobody_listens(ssh_server: SshServer) -> None:
    device = ssh_server.device(name="gone", address=f"127.0.0.1:{free_port()}")
    with pytest.raises(TargetError, match=r"could not connect to gone.*Connection refused.*BatchMode=yes -p \d+ 127"):
        run_remotely(device, command(""))


def test_refused_key_is_quoted(ssh_server: SshServer, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger")
    config = ssh_server.config.read_text().replace(str(ssh_server.folder / "client"), str(stranger))
    (tmp_path / "config").write_text(config)
    with pytest.raises(TargetError, match="Permission denied"):
        run_remotely(ssh_server.device(ssh_config=str(tmp_path / "config")), command(""))


def test_changed_host_key_is_quoted_and_not_overridden(ssh_server: SshServer, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{ssh_server.port} {other}")
    config = ssh_server.config.read_text().replace(str(ssh_server.folder), str(tmp_path))
    (tmp_path / "config").write_text(config)
    with pytest.raises(TargetError, match="Host key verification failed"):
        run_remotely(ssh_server.device(ssh_config=str(tmp_path / "config")), command(""))


def test_missing_python_is_named(ssh_server: SshServer) -> None:
    with pytest.raises(TargetError, match=r"no /nowhere/python3 that can be started.*python: ~/venv"):
        run_remotely(ssh_server.device(python="/nowhere/python3"), command(""))


def test_python_that_answers_nothing_is_named_with_its_status(ssh_server: SshServer) -> None:
    with pytest.raises(TargetError, match="/bin/false ended with exit status 1 and no answer"):
        run_remotely(ssh_server.device(python="/bin/false"), command(""))


def test_machine_that_never_answers_is_given_up(
    ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.targets.ssh.transport.STARTUP_S", 0.5)
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\nexec sleep 30\n")
    mute.chmod(0o755)
    device = ssh_server.device(python=str(mute), connect_timeout_s=1)
    with pytest.raises(StageTimeoutError, match=r"box gave no answer within 2\.5 s"):
        run_remotely(device, command("", timeout_s=1.0))


def test_missing_ssh_is_named(ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingToolError, match="needs ssh"):
        run_remotely(ssh_server.device(), command(""))


def test_doctor_says_what_ssh_said(ssh_server: SshServer) -> None:
    found = diagnose_ssh(ssh_server.device(address=f"127.0.0.1:{free_port()}"))
    assert not found.usable
    assert "Connection refused" in found.problems[0]


def test_options_of_the_device_reach_ssh(ssh_server: SshServer) -> None:
    line = ssh_command(ssh_server.device(address="me@[fe80::1%eth0]:2222", identity="~/key", ssh_config=None))
    assert line[line.index("-l") + 1] == "me"
    assert line[line.index("-p") + 1] == "2222"
    assert line[line.index("-i") + 1] == str(Path("~/key").expanduser())
    assert line[-3:-1] == ["--", "fe80::1%eth0"]
    assert "StrictHostKeyChecking" not in " ".join(line)  # the user's business


def test_address_form_goes_through_the_users_own_configuration(
    ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("ssh")
    (tmp_path / "ssh").write_text(f'#!/bin/sh\nexec {real} -F {ssh_server.config} "$@"\n')  # stands for ~/.ssh/config
    (tmp_path / "ssh").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    edgekit = str(Path(sys.executable).parent / "edgekit")
    done = subprocess.run(
        [edgekit, "targets", "doctor", "ssh:box"], env=environment, capture_output=True, text=True, check=False
    )
    assert "Linux" in done.stdout
    assert "address" in done.stdout


@pytest.mark.parametrize("path", ["../outside", "/tmp/outside", "a/../../outside", ""])
def test_files_go_nowhere_but_into_the_folder(path: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ValueError, match="leads out of the folder"):
        receive(io.BytesIO(b"abc"), folder, [{"path": path, "size": 3}])
    assert list(tmp_path.rglob("*")) == [folder]


def test_cut_off_transfer_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(Gone):
        receive(io.BytesIO(b"ab"), tmp_path.resolve(), [{"path": "file", "size": 3}])


def test_full_disk_over_there_is_said(ssh_server: SshServer) -> None:
    files = [("script.py", b""), ("script.py/below-a-file", b"x")]
    with pytest.raises(ToolError, match=r"box could not do it: .*Not a directory|File exists"):
        run_remotely(ssh_server.device(), RemoteCommand(files=files, arguments=["script.py"], results=[], timeout_s=10))
    assert ssh_server.left_behind() == []


def has_ended(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" in status.read_text()


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited 20 s in vain"
        time.sleep(0.05)
