"""Run and count any aarch64 program on an emulated target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import UserInputError
from edgekit.records import ModelLayer
from edgekit.targets import find_device

if TYPE_CHECKING:
    from edgekit.targets.emulated.program import EmulatedProgram


def emulate(
    command: Sequence[str],
    target: str,
    *,
    root: Path | None,
    library_path: Sequence[Path],
    environment: Sequence[str],
    limit_instructions: int | None,
    limit_seconds: float,
    model: ModelLayer,
) -> EmulatedProgram:
    """Run a program behind the persona of a target and count it.

    Args:
        command: The program and its arguments.
        target: The device's name.
        root: Folder that the guest sees as ``/``; None: the cross compiler's libraries only.
        library_path: Folders with the program's shared libraries.
        environment: ``NAME=VALUE`` each.
        limit_instructions: Stop the program after so many; None: no limit.
        limit_seconds: Stop it after so long.
        model: Layer of the latency model.

    Raises:
        TargetError: No such device, or it is not an emulated one.
        UserInputError: A folder, a variable or the program is wrong.
        UnsupportedError: The tools of emulation are not set up here.
        ToolError: The program failed, crashed, or ran into a limit.
    """
    from edgekit.targets.emulated.guest import GuestLimits
    from edgekit.targets.emulated.program import ProgramRequest, run_program

    missing = [folder for folder in library_path if not folder.is_dir()]
    if missing:
        raise UserInputError(f"--library-path: expected a folder; {missing[0]} is none")
    return run_program(
        ProgramRequest(
            command=tuple(command),
            device=find_device(target),
            root=root,
            library_path=tuple(library_path),
            environment=dict(_parse_variable(text) for text in environment),
            limits=GuestLimits(instructions=limit_instructions, seconds=limit_seconds),
            model=model,
        )
    )


def _parse_variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise UserInputError(f"--env: expected NAME=VALUE; received {text!r}")
    return name, value
