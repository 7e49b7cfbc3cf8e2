"""What runs on the other machine: receive files into a fresh folder, run one command there, send back what it wrote.

This file is sent as text over the connection and executed by the Python over there (3.9 or newer, standard library
only); nothing of edgekit is installed on that machine, and nothing stays behind. Standard input is kept open by the
sender for as long as it is interested: when it ends, because of Ctrl-C, a crash or a lost connection, the command is
stopped and the folder removed.

Over standard input come one line of JSON and the files::

    {"nonce": "...", "files": [{"path": "a/b", "size": 3}], "command": ["measure.py", ...], "results": ["result.json"],
     "timeout_s": 60}

Over standard output go, after whatever a login shell may have printed, the nonce, one line of JSON, and the results::

    {"state": "done", "status": 0, "log": "...", "files": [{"path": "result.json", "size": 9}], "left_behind": false}

``state`` is ``done``, ``timed_out``, ``old_python`` or ``failed`` (``log`` says why).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO

OLDEST_PYTHON = (3, 9)
LOG_BYTES = 4000
POLL_S = 0.1
GRACE_S = 3.0
SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


class Gone(Exception):
    """Nobody waits for the answer any more."""


def receive(stream: BinaryIO, folder: Path, files: list[dict[str, Any]]) -> None:
    """Write the files that come over the stream into the folder.

    Raises:
        Gone: The stream ended before they were whole.
        ValueError: A path leads out of the folder.
    """
    for file in files:
        place = folder / file["path"]
        if folder not in place.resolve().parents:
            raise ValueError("path leads out of the folder: " + repr(file["path"]))
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as target:
            left = int(file["size"])
            while left:
                block = stream.read(min(left, 1 << 20))
                if not block:
                    raise Gone
                target.write(block)
                left -= len(block)


def run(command: list[str], folder: Path, timeout_s: float) -> tuple[str, int | None]:
    """Run the command in the folder until it ends, the time is up, or nobody listens.

    Raises:
        Gone: Standard input ended.
    """
    deadline = time.monotonic() + timeout_s
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, *command], cwd=str(folder), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, env={**os.environ, "TMPDIR": str(folder)},
        )  # fmt: skip
        try:
            while child.poll() is None:
                readable, _, _ = select.select([0], [], [], POLL_S)
                if readable and not os.read(0, 1 << 16):
                    raise Gone
                if time.monotonic() > deadline:
                    return "timed_out", None
            return "done", child.returncode
        finally:
            stop(child)


def stop(child: subprocess.Popen[bytes]) -> None:
    """End the command and all it started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the latter is macOS' word for a dead group
            os.killpg(child.pid, sign)
        deadline = time.monotonic() + GRACE_S
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)


def work(stream: BinaryIO, header: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """Do what the header asks for; return the answer and the results."""
    if sys.version_info < OLDEST_PYTHON:
        return {"state": "old_python", "status": None, "log": sys.version.split()[0], "files": []}, []
    folder = Path(tempfile.mkdtemp(prefix="edgekit-")).resolve()
    try:
        receive(stream, folder, header["files"])
        state, status = run(header["command"], folder, float(header["timeout_s"]))
        found = {name: (folder / name).read_bytes() for name in header["results"] if (folder / name).is_file()}
        log = (folder / "log").read_bytes()[-LOG_BYTES:].decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        state, status, found, log = "failed", None, {}, str(error)
    finally:
        shutil.rmtree(str(folder), ignore_errors=True)
    files = [{"path": name, "size": len(data)} for name, data in found.items()]
    answer = {"state": state, "status": status, "log": log, "files": files, "left_behind": folder.exists()}
    return answer, list(found.values())


def leave(_number: int, _frame: object) -> None:
    """Turn a signal into an exception, so that the folder is removed; a second one must not interrupt that."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise Gone


def main() -> None:
    """Serve one request."""
    for number in SIGNALS:
        signal.signal(number, leave)
    stream = sys.stdin.buffer
    try:
        header = json.loads(stream.readline())
        answer, results = work(stream, header)
        sys.stdout.buffer.write(("\n" + header["nonce"] + "\n" + json.dumps(answer) + "\n").encode())
        for data in results:
            sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except (Gone, BrokenPipeError):
        os._exit(1)  # no flush of a stream that nobody reads


if __name__ == "__main__":
    main()
