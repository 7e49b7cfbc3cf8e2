"""``edgekit``: the commands, their exit codes, and the promise that a user never sees a traceback."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from edgekit import __version__
from edgekit.cli import (
    build,
    bundle,
    check,
    compare,
    convert,
    doctor,
    emulate,
    init,
    inspect,
    profile,
    recipe,
    report,
    targets,
    verify,
)
from edgekit.errors import EdgekitError, InterruptedByUserError

app = typer.Typer(
    name="edgekit",
    help="One recipe to TFLite, ExecuTorch, Core ML and ONNX: built, run, verified, profiled and held to budgets.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (build, convert, profile, emulate, verify, compare, inspect, check, report, bundle, init, doctor):
    app.command(name=command.NAME)(command.run)
app.add_typer(targets.app, name="targets")
app.add_typer(recipe.app, name="recipe")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgekit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_print_version, is_eager=True),
) -> None:
    """Hold the options of `edgekit` itself."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name.

    Returns:
        0 all good, 1 a check failed, 2 wrong input, 3 a tool failed, 130 interrupted.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    command = typer.main.get_command(app)
    try:
        answer: Any = command.main(args=arguments, prog_name="edgekit", standalone_mode=False)
    except KeyboardInterrupt:
        return _fail(InterruptedByUserError("interrupted"), arguments)
    except EdgekitError as error:
        return _fail(error, arguments)
    except BrokenPipeError:  # the reader of our output went away (`| head`): nothing is wrong
        sys.stderr.close()
        return 0
    except Exception as error:  # noqa: BLE001 - the last resort: everything else is a bug, and no traceback is shown
        return _finish_click(error, arguments)
    if answer == InterruptedByUserError.exit_code:  # typer turns Ctrl-C into this code, and says nothing
        return _fail(InterruptedByUserError("interrupted"), arguments)
    return answer if isinstance(answer, int) else 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _finish_click(error: Exception, arguments: list[str]) -> int:
    """Tell a usage mistake (which click explains itself) from a bug."""
    show = getattr(error, "show", None)
    if show is not None:
        show(file=sys.stderr)
        exit_code = int(getattr(error, "exit_code", 2))
        described = getattr(error, "format_message", error.__str__)
        _print_document(str(described()), exit_code, "UsageError", arguments)
        return exit_code
    if type(error).__name__ == "Abort":
        return _fail(InterruptedByUserError("interrupted"), arguments)
    with tempfile.NamedTemporaryFile("w", prefix="edgekit-bug-", suffix=".log", delete=False) as log:
        traceback.print_exc(file=log)
    message = f"a mistake in edgekit itself ({type(error).__name__}: {error}); please report it with {Path(log.name)}"
    return _report(message, 3, type(error).__name__, arguments)


def _fail(error: EdgekitError, arguments: list[str]) -> int:
    return _report(str(error), error.exit_code, type(error).__name__, arguments)


def _report(message: str, exit_code: int, kind: str, arguments: list[str]) -> int:
    sys.stderr.write(f"error: {message}\n")
    _print_document(message, exit_code, kind, arguments)
    return exit_code


def _print_document(message: str, exit_code: int, kind: str, arguments: list[str]) -> None:
    if "--json" in arguments:
        document = {"schema_version": 1, "error": {"kind": kind, "message": message, "exit_code": exit_code}}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
