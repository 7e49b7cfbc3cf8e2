"""Run one function in a child process: its own memory, its own log, a time limit, a structured answer.

Converters abort, hang, leak memory and print to every stream. A child keeps that away from the build: standard output
and standard error go to a log file, the answer comes back as a JSON record, progress as JSON lines over a pipe.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from edgekit import errors
from edgekit.contracts import load_entry
from edgekit.records import dumps, from_json, to_json

EVENTS_VARIABLE = "EDGEKIT_EVENTS_FD"
PARENT_VARIABLE = "EDGEKIT_PARENT"
Event = dict[str, Any]
Result = TypeVar("Result")
_children: set[subprocess.Popen[bytes]] = set()


def emit(event: Event) -> None:
    """Report progress to the parent: one JSON line. Does nothing outside a child."""
    descriptor = os.environ.get(EVENTS_VARIABLE)
    if descriptor:
        os.write(int(descriptor), (json.dumps(event) + "\n").encode())


def run_child(
    entry: str,
    request: object,
    result_type: type[Result],
    *,
    stage: str,
    log: Path,
    timeout_s: float | None = None,
    on_event: Callable[[Event], None] | None = None,
    launcher: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Result:
    """Call ``entry(request)`` in a child process and return its record.

    Args:
        entry: ``package.module:function``; takes one record, returns one record.
        request: The argument.
        result_type: The record that comes back.
        stage: Named in errors.
        log: The child's standard output and error are appended here.
        timeout_s: The child and everything it started is killed after so many seconds.
        on_event: Called with every progress event, from a thread.
        launcher: Put between the interpreter's options and the child's module (``-m torch.distributed.run ...``).
        environment: Variables added to the child's environment.

    Raises:
        EdgekitError: The same error that the child raised, with its message.
        ToolError: The child raised anything else; the traceback is in the log.
        StageTimeoutError: It ran too long.
        StageCrashError: It died without an answer.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        request_path, answer_path = Path(folder) / "request.json", Path(folder) / "answer.json"
        request_path.write_text(dumps(request), encoding="utf-8")
        module = ["-m", *launcher, "-m", "edgekit.process"] if launcher else ["-m", "edgekit.process"]
        command = [sys.executable, *module, entry, str(request_path), str(answer_path)]
        status = _supervise(command, log, timeout_s, on_event, stage, environment or {})
        if not answer_path.is_file():
            raise errors.StageCrashError(_describe_death(status), stage=stage, log=str(log))
        answer = json.loads(answer_path.read_text(encoding="utf-8"))
    if "error" in answer:
        raise _rebuild_error(answer["error"], stage, str(log))
    return from_json(result_type, answer["result"])


def run_alone(entry: str, request: object, result_type: type[Result], *, stage: str, timeout_s: float) -> Result:
    """Call ``entry(request)`` in a child of its own, outside any build: its log is kept only where it fails.

    Raises:
        EdgekitError: As ``run_child``; the log is named.
    """
    prefix = f"edgekit-{stage.replace(' ', '-')}-"
    with tempfile.NamedTemporaryFile(prefix=prefix, suffix=".log", delete=False) as file:
        log = Path(file.name)
    result = run_child(entry, request, result_type, stage=stage, log=log, timeout_s=timeout_s)
    log.unlink()
    return result


def _supervise(
    command: Sequence[str],
    log: Path,
    timeout_s: float | None,
    on_event: Callable[[Event], None] | None,
    stage: str,
    environment: Mapping[str, str],
) -> int:
    read_end, write_end = os.pipe()
    with log.open("ab") as output, os.fdopen(read_end, encoding="utf-8") as events:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(write_end,),
            start_new_session=True,
            env={**os.environ, **QUIET, **environment, **_child_environment(write_end)},
        )
        _children.add(child)
        os.close(write_end)
        reader = threading.Thread(target=_read_events, args=(events, on_event), daemon=True)
        reader.start()
        try:
            status = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _kill_group(child)
            message = f"ran past its limit of {timeout_s:g} s and was stopped"
            raise errors.StageTimeoutError(message, stage=stage, log=str(log)) from None
        except BaseException:
            _kill_group(child)
            raise
        finally:
            _children.discard(child)
        reader.join(timeout=5)
    return status


def _child_environment(events: int) -> dict[str, str]:
    return {EVENTS_VARIABLE: str(events), PARENT_VARIABLE: str(os.getpid()), "PYTHONPATH": _python_path()}


def stop_children() -> None:
    """End every running child: what an interrupted build does before it leaves."""
    for child in tuple(_children):
        _kill_group(child)


QUIET = {"TQDM_DISABLE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Settings that keep the libraries from filling logs with bars and banners."""


def _python_path() -> str:
    """Let a child import what the user's working folder holds, as ``python -m`` would."""
    inherited = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(Path.cwd()), *([inherited] if inherited else [])])


def _read_events(stream: typing.TextIO, on_event: Callable[[Event], None] | None) -> None:
    for line in stream:
        if on_event is not None:
            on_event(json.loads(line))


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """End the child and whatever it started: politely first, so that files are closed."""
    for sign, patience_s in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, sign)
        deadline = time.monotonic() + patience_s
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)


def _describe_death(status: int) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        hint = "; the machine may have run out of memory" if name == "SIGKILL" else ""
        return f"the child process was ended by {name}{hint}"
    return f"the child process exited with status {status} without an answer"


def _rebuild_error(answer: Mapping[str, str], stage: str, log: str) -> errors.EdgekitError:
    kind = getattr(errors, answer["kind"], errors.ToolError)
    if kind is errors.UnsupportedError:
        return errors.UnsupportedError(answer["what"], reason=answer["reason"], instead=answer["instead"])
    if issubclass(kind, errors.ToolError):
        return kind(answer["message"], stage=answer.get("stage") or stage, log=log)
    see = f" (traceback: {log})" if "unforeseen" in answer else ""
    error: errors.EdgekitError = kind(f"{answer['message']}{see}")
    return error


def _error_answer(error: BaseException) -> dict[str, str]:
    if isinstance(error, errors.UnsupportedError):
        return {"kind": "UnsupportedError", "what": error.what, "reason": error.reason, "instead": error.instead}
    if isinstance(error, errors.ToolError):
        return {"kind": type(error).__name__, "message": error.message, "stage": error.stage or ""}
    if isinstance(error, errors.EdgekitError):
        return {"kind": type(error).__name__, "message": str(error)}
    first_line = (str(error).strip().splitlines() or [""])[0]
    said = f"{type(error).__name__}: {first_line[:500]}"
    place = _place_in_users_code(error)
    if place is not None:
        return {"kind": "UserInputError", "message": f"{place} raised {said}", "unforeseen": "yes"}
    return {"kind": "ToolError", "message": said}


def _place_in_users_code(error: BaseException) -> str | None:
    """Return the innermost line of the user's own code that the error came through; None: it came from elsewhere.

    The user's own is what lies in the working folder or on ``PYTHONPATH``, without what is installed there.
    """
    own = [Path(folder).resolve() for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    installed = [Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "purelib", "platlib")]
    installed.append(Path(__file__).resolve().parent)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename).resolve()
        if any(map(path.is_relative_to, own)) and not any(map(path.is_relative_to, installed)):
            return f"{path.name}:{frame.lineno} (`{frame.line}`)"
    return None


def _die_with_parent() -> None:
    """Ask the kernel to end this process when the build that started it is killed (Linux only).

    A build that is ended with SIGKILL cannot stop its children; without this they would train on, unseen.
    """
    if not sys.platform.startswith("linux") or "RANK" in os.environ:
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.environ.get(PARENT_VARIABLE) not in (None, str(os.getppid())):
        os.kill(os.getpid(), signal.SIGKILL)  # the parent died before the request above


def _adopt_events() -> None:
    """Find the progress pipe again under torchrun, whose workers do not inherit it: their parent still holds it.

    Where that cannot be opened (no ``/proc``), and in every worker but the first, events are dropped: the number in the
    environment would name some other file of this process.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    descriptor = os.environ.pop(EVENTS_VARIABLE, None)
    held = Path(f"/proc/{os.getppid()}/fd/{descriptor}")
    if descriptor and os.environ.get("RANK") == "0" and held.exists():
        os.environ[EVENTS_VARIABLE] = str(os.open(held, os.O_WRONLY))


def main(arguments: Sequence[str]) -> int:
    """Serve one call: read the request, call the entry, write the answer whole or not at all."""
    _die_with_parent()
    entry, request_path, answer_path = arguments
    _adopt_events()
    try:
        function = load_entry(entry)
        hints = typing.get_type_hints(function)
        parameter = next(name for name in hints if name != "return")
        request = from_json(hints[parameter], json.loads(Path(request_path).read_text(encoding="utf-8")))
        answer: dict[str, Any] = {"result": to_json(function(request))}
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the boundary of the process: everything is reported
        traceback.print_exc()
        answer = {"error": _error_answer(error)}
    if int(os.environ.get("RANK", "0")) != 0:
        return 1 if "error" in answer else 0
    temporary = Path(answer_path).with_suffix(".partial")
    temporary.write_text(json.dumps(answer), encoding="utf-8")
    temporary.replace(answer_path)
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
