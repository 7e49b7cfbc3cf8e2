"""One command on another machine: files there, results back, one ssh connection, nothing left behind.

The remote side is :mod:`edgekit.targets.ssh.agent`, sent as text. Everything goes through standard input and output of
one ``ssh``: no scp, no second login, no dependence on the login shell beyond starting Python. Which hosts, keys and
proxies are trusted is the business of the user's own configuration; only questions are switched off.
"""

from __future__ import annotations

import json
import secrets
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgekit.errors import MissingToolError, StageTimeoutError, TargetError, ToolError
from edgekit.targets.ssh.spec import SshDevice, parse_address

LOADER = "import sys;exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
"""Executes the agent, whose length comes first. Holds no quote, so that every login shell hands it on as it is."""
SSH_FAILED = 255
"""Exit status of ssh for its own failures: ssh(1), EXIT STATUS."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit statuses of a POSIX shell for a command that it cannot start (XCU 2.8.2)."""
STDERR_LINES = 8
STARTUP_S = 60.0
"""What copying and starting may take beyond the time that the measurement has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteCommand:
    """A Python program to run on the other machine.

    Attributes:
        files: ``(path in the folder, content)``.
        arguments: The script, relative to the folder, and its arguments.
        results: Files of the folder to bring back.
        timeout_s: Of the program.
    """

    files: Iterable[tuple[str, bytes]]
    arguments: Sequence[str]
    results: Sequence[str]
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAnswer:
    """What came back.

    Attributes:
        status: Exit status of the program.
        log: The end of what it printed.
        results: Path -> content, of those that it wrote.
    """

    status: int
    log: str
    results: dict[str, bytes]


def run_remotely(device: SshDevice, command: RemoteCommand) -> RemoteAnswer:
    """Run a program in a fresh folder on the other machine; the folder is removed whatever happens.

    Raises:
        MissingToolError: There is no ssh here.
        TargetError: The machine cannot be reached or refuses us, or has no Python that is new enough.
        StageTimeoutError: The program, or the connection, took too long.
        ToolError: The machine could not do it (a full disk, for one), or left files behind.
    """
    nonce = secrets.token_hex(16)
    output, status, said = _converse(device, command, _payload(command, nonce))
    _, found, answer = output.partition(f"\n{nonce}\n".encode())
    if not found:
        raise _no_answer(device, status, said)
    head, _, body = answer.partition(b"\n")
    return _read_answer(device, json.loads(head), body)


def ssh_command(device: SshDevice) -> list[str]:
    """Return the command line that starts Python on the device."""
    address = parse_address(device.address)
    options = [
        *("-T", "-a", "-x"),  # no terminal, no forwarding of agent or display
        *("-o", "BatchMode=yes", "-o", f"ConnectTimeout={device.connect_timeout_s}"),
        *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"),
        *("-o", "ClearAllForwardings=yes", "-o", "ControlMaster=no"),
    ]
    if device.ssh_config is not None:
        options += ["-F", str(Path(device.ssh_config).expanduser())]
    if device.identity is not None:
        options += ["-i", str(Path(device.identity).expanduser()), "-o", "IdentitiesOnly=yes"]
    if address.user is not None:
        options += ["-l", address.user]
    if address.port is not None:
        options += ["-p", str(address.port)]
    return ["ssh", *options, "--", address.host, f"{device.python} -c {shlex.quote(LOADER)}"]


def _payload(command: RemoteCommand, nonce: str) -> list[bytes]:
    """Return the agent, the header and the files, in the order in which they are sent."""
    agent = Path(__file__).with_name("agent.py").read_bytes()
    files = list(command.files)
    header = {
        "nonce": nonce,
        "files": [{"path": path, "size": len(data)} for path, data in files],
        "command": list(command.arguments),
        "results": list(command.results),
        "timeout_s": command.timeout_s,
    }
    return [f"{len(agent)}\n".encode(), agent, json.dumps(header).encode() + b"\n", *(data for _, data in files)]


def _converse(device: SshDevice, command: RemoteCommand, payload: Sequence[bytes]) -> tuple[bytes, int, str]:
    """Send everything, keep the line open, and read until the other side hangs up: output, exit status, complaints."""
    limit_s = command.timeout_s + device.connect_timeout_s + STARTUP_S
    with tempfile.TemporaryFile() as complaints:
        try:
            child = subprocess.Popen(
                ssh_command(device), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints
            )
        except FileNotFoundError as error:
            raise MissingToolError(f"reaching {device.name} needs ssh, which is not installed here") from error
        late = threading.Event()
        timer = threading.Timer(limit_s, _give_up, (child, late))
        try:
            timer.start()
            output = _exchange(child, payload)
            status = child.wait()
        finally:
            timer.cancel()
            _hang_up(child)
        if late.is_set():
            raise StageTimeoutError(f"{device.name} gave no answer within {limit_s:g} s; the connection was closed")
        complaints.seek(0)
        return output, status, complaints.read().decode("utf-8", "replace")


def _give_up(child: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    child.kill()


def _exchange(child: subprocess.Popen[bytes], payload: Sequence[bytes]) -> bytes:
    if child.stdin is None or child.stdout is None:
        raise ToolError("expected pipes to ssh; there are none")
    sender = threading.Thread(target=_send, args=(child.stdin, payload), daemon=True)
    sender.start()
    output = child.stdout.read()
    child.wait()
    sender.join()
    return output


def _send(stream: IO[bytes], payload: Sequence[bytes]) -> None:
    """Write everything and leave the stream open: its end tells the other side that nobody waits."""
    try:
        for data in payload:
            stream.write(data)
        stream.flush()
    except BrokenPipeError:
        return  # the other side hung up; its exit status says why


def _hang_up(child: subprocess.Popen[bytes]) -> None:
    """End ssh; the agent sees the line go dead, and cleans up."""
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            try:
                stream.close()
            except BrokenPipeError:
                continue
    if child.poll() is None:
        child.terminate()
        child.wait()


def _no_answer(device: SshDevice, status: int, said: str) -> TargetError | ToolError:
    """Say why there is none, by the exit status; what ssh or the remote shell printed is quoted, not interpreted."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    quoted = " / ".join(lines[-STDERR_LINES:]) or "nothing was printed"
    if status == SSH_FAILED:
        address = parse_address(device.address)
        user, port = f"{address.user}@" if address.user else "", f"-p {address.port} " if address.port else ""
        return TargetError(
            f"ssh could not connect to {device.name}, or lost the connection: {quoted}. It must work without a "
            f"question: ssh -o BatchMode=yes {port}{user}{address.host} true"
        )
    if status in (NOT_FOUND, NOT_EXECUTABLE):
        return TargetError(
            f"{device.name}: there is no {device.python} that can be started ({quoted}). Install Python 3.9 or newer "
            "there, or name it in a device file of kind ssh (python: ~/venv/bin/python)."
        )
    if status < 0:
        return ToolError(f"ssh to {device.name} was ended by signal {-status}")
    return TargetError(
        f"{device.name}: {device.python} ended with exit status {status} and no answer: {quoted}. "
        "Python 3.9 or newer is needed there; on macOS, xcode-select --install brings one."
    )


def _read_answer(device: SshDevice, answer: dict[str, Any], body: bytes) -> RemoteAnswer:
    state, log = answer["state"], str(answer["log"]).strip()
    if state == "old_python":
        raise TargetError(f"{device.name}: {device.python} is Python {log}; 3.9 or newer is needed.")
    if state == "timed_out":
        raise StageTimeoutError(f"{device.name}: the measurement ran past its limit and was stopped. {log}")
    if state == "failed":
        raise ToolError(f"{device.name} could not do it: {log}")
    if answer["left_behind"]:
        raise ToolError(f"{device.name}: the folder of the measurement could not be removed there")
    results, start = {}, 0
    for file in answer["files"]:
        results[file["path"]] = body[start : start + file["size"]]
        start += file["size"]
    if start != len(body):
        raise ToolError(f"{device.name}: expected {start} bytes of results; received {len(body)}")
    return RemoteAnswer(status=int(answer["status"]), log=log, results=results)
