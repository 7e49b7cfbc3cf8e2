"""Every error that edgekit raises on purpose, in one tree.

::

    EdgekitError                    exit code
    ├── UserInputError              2   the user's input is wrong; the message names the place and the way out
    │   ├── RecipeError                 a key, a value, a unit, a rule of the recipe
    │   ├── ModelError                  a model file or callable that cannot be loaded or exported
    │   ├── DataError                   wrong shape, dtype, NaN, labels out of range, too few samples
    │   ├── ArtifactError               an artifact or a build folder that is missing, truncated or too new
    │   ├── TargetError                 an unknown device, or one that cannot be reached from here
    │   ├── OutputError                 a folder that cannot be written, is full, or is in use by another build
    │   ├── UntrustedCodeError          a file that would execute code; needs ``--trust``
    │   └── UnsupportedError            a combination that cannot work, with what to use instead
    ├── ToolError                   3   a converter, a runtime or a compiler failed; names the stage and the log
    │   ├── MissingToolError            a package or program that this step needs is not installed
    │   ├── StageTimeoutError           a stage ran past its limit and was stopped
    │   └── StageCrashError             a child process died without an answer (signal, abort, out of memory)
    ├── CheckFailedError            1   a budget, a parity check or a regression check did not hold
    └── InterruptedByUserError    130   Ctrl-C or SIGTERM
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class EdgekitError(Exception):
    """Base of the tree. ``exit_code`` is what the command line returns for it."""

    exit_code = 3


class UserInputError(EdgekitError):
    """The user's input is wrong: one clear message, nothing lost."""

    exit_code = 2


class RecipeError(UserInputError):
    """A key, a value, a unit or a rule of the recipe is wrong."""


class ModelError(UserInputError):
    """A model file or callable cannot be loaded, or the model cannot be exported."""


class DataError(UserInputError):
    """Data have the wrong shape, dtype or values, or there are too few of them."""


class ArtifactError(UserInputError):
    """An artifact, manifest or build folder is missing, truncated or of a newer schema."""


class TargetError(UserInputError):
    """A target is unknown, badly described or cannot be reached from this machine."""


class OutputError(UserInputError):
    """The output folder cannot be written, is full, or is in use by another build."""


class UntrustedCodeError(UserInputError):
    """Loading this file would execute code that it carries; the user must say ``--trust``."""


class UnsupportedError(UserInputError):
    """A combination that cannot work, refused before work is spent on it.

    Args:
        what: The combination that was asked for.
        reason: Why it cannot work.
        instead: What to use instead.
    """

    def __init__(self, what: str, *, reason: str, instead: str) -> None:
        super().__init__(f"{what} is not supported: {reason}. Instead: {instead}.")
        self.what = what
        self.reason = reason
        self.instead = instead


class ToolError(EdgekitError):
    """A tool failed.

    Args:
        message: What happened.
        stage: The stage of the journey that failed, such as ``export:tflite/int8``.
        log: Where the tool's own output was kept, if anywhere.
    """

    exit_code = 3

    def __init__(self, message: str, *, stage: str | None = None, log: str | None = None) -> None:
        where = f"[{stage}] " if stage else ""
        see = f" (log: {log})" if log else ""
        super().__init__(f"{where}{message}{see}")
        self.message = message
        self.stage = stage
        self.log = log


class MissingToolError(ToolError):
    """A package or program that this step needs is not installed; the message says how to get it."""


class StageTimeoutError(ToolError):
    """A stage ran past its time limit and was stopped."""


class StageCrashError(ToolError):
    """A child process died without an answer: a signal, an abort, or no memory."""


class CheckFailedError(EdgekitError):
    """A budget, a parity check or a regression check did not hold."""

    exit_code = 1


class InterruptedByUserError(EdgekitError):
    """The user stopped the run (Ctrl-C or SIGTERM)."""

    exit_code = 130


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return a hint: the nearest allowed name, and all of them.

    Example:
        >>> nearest("epoch", ["epochs", "lr"])
        "Did you mean 'epochs'? Allowed: epochs, lr."
    """
    names = sorted(allowed)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Allowed: {', '.join(names)}."
