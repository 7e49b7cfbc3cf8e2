"""The folder that a guest sees as ``/``: the user's, with the processor files of a persona laid over it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edgekit.errors import UserInputError

_ELF: Final = b"\x7fELF"
_AARCH64: Final = 183
_LOADER: Final = "ld-linux-aarch64.so.1"
_MACHINES: Final = {3: "x86 (32 bit)", 40: "Arm (32 bit)", 62: "x86-64", 243: "RISC-V"}


def guest_root(persona_root: Path, user_root: Path, merged: Path) -> Path:
    """Make a folder of links: ``/proc`` and ``/sys`` are the persona's, everything else is the user's where it has it.

    A root without a dynamic loader of its own is completed by the persona's ``/lib``: loader and C library must be of
    one version, so they come from one place.

    Args:
        persona_root: Holds ``proc``, ``sys``, ``etc`` and ``lib``.
        user_root: Such as an unpacked Debian for arm64.
        merged: The folder to make.

    Raises:
        UserInputError: The user's root is no folder, or an empty one.
    """
    if not user_root.is_dir():
        raise UserInputError(f"--root: expected a folder with the guest's files; {user_root} is none")
    entries = sorted(user_root.iterdir())
    if not entries:
        raise UserInputError(f"--root: expected a folder with the guest's files; {user_root} is empty")
    has_loader = (user_root / "lib" / _LOADER).exists()
    merged.mkdir(parents=True)
    for entry in entries:
        if entry.name not in ("proc", "sys", "etc") and (entry.name != "lib" or has_loader):
            (merged / entry.name).symlink_to(entry.absolute())
    for name in ("proc", "sys"):
        (merged / name).symlink_to((persona_root / name).absolute())
    if not has_loader:
        _merge_folder(merged / "lib", [persona_root / "lib", user_root / "lib"])
    _merge_folder(merged / "etc", [persona_root / "etc", user_root / "etc"])
    return merged


def _merge_folder(merged: Path, sources: list[Path]) -> None:
    """Link what lies in several folders into one; of one name, that of the last folder counts."""
    merged.mkdir()
    for source in sources:
        for entry in sorted(source.iterdir()) if source.is_dir() else ():
            link = merged / entry.name
            link.unlink(missing_ok=True)
            link.symlink_to(entry.absolute())


def require_aarch64(program: str, user_root: Path | None) -> Path:
    """Return the program's path on this machine.

    Args:
        program: A path below the user's root, or on this machine.
        user_root: The guest's ``/``; None: there is no own one.

    Raises:
        UserInputError: There is no such file, or it is no aarch64 program.
    """
    places = [Path(program)]
    if user_root is not None:  # first: /usr/bin/python3 of this machine is another program
        places.insert(0, user_root / program.lstrip("/"))
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserInputError(f"expected an aarch64 program; there is none at {' or '.join(map(str, places))}")
    with found.open("rb") as file:
        head = file.read(20)
    if head[:4] != _ELF:
        raise UserInputError(
            f"{found}: expected an aarch64 ELF program; this is none. For a script, name its interpreter: "
            "-- /usr/bin/python3 script.py"
        )
    machine = int.from_bytes(head[18:20], "little")
    if machine != _AARCH64:
        kind = _MACHINES.get(machine, f"machine {machine}")
        raise UserInputError(
            f"{found}: expected a program for aarch64; received one for {kind}. Build it with aarch64-linux-gnu-gcc."
        )
    return found.absolute()
