"""Artifacts of the tiny models, from both frameworks: each is exported once in a test process, for all tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from contracts import keras_programs, tiny_programs
from contracts.tiny_programs import cached_folder, tiny_program

from edgekit.contracts import ExportResult, load_entry
from edgekit.formats import format_spec, require_cell
from edgekit.frameworks import framework_spec
from edgekit.records import ExportRequest, FormatName, Precision, Program


@dataclass(frozen=True, eq=False)
class ProgramMaker:
    """Where the programs of the tiny models come from.

    Attributes:
        build: Writes one into a folder.
        image: Shape of the image that the ``cnn`` takes.
        total: Shape of the second output of ``two_heads``.
        programs: (format, precision) -> precision of the program, where it is not the format's own choice.
    """

    build: Callable[..., Program]
    image: tuple[int, ...]
    total: tuple[int, ...]
    programs: Mapping[tuple[FormatName, Precision], Precision] = field(default_factory=dict)


PYTORCH = ProgramMaker(build=tiny_programs.build_program, image=(1, 3, 16, 16), total=())
KERAS = ProgramMaker(
    build=keras_programs.build_program, image=(1, 16, 16, 3), total=(1,), programs=framework_spec("keras").programs
)


class TinyArtifact(NamedTuple):
    """An artifact, its program and what the exporter said."""

    path: Path
    program: Program
    result: ExportResult


def program_for(
    name: FormatName,
    model: str,
    precision: Precision,
    *,
    backend: str | None = None,
    maker: ProgramMaker = PYTORCH,
    dynamic_batch: bool = False,
    place: str = "here",
) -> Program:
    """Return the program that an artifact of a tiny model is made of."""
    _, usual = require_cell(format_spec(name), precision, backend)
    wanted = maker.programs.get((name, precision), usual)
    return tiny_program(model, wanted, dynamic_batch=dynamic_batch, build=maker.build, place=place)


def export_program(
    name: FormatName, program: Program, precision: Precision, folder: Path, *, backend: str | None = None
) -> TinyArtifact:
    """Export a program into a folder."""
    spec = format_spec(name)
    request = ExportRequest(
        program=program,
        format=name,
        precision=precision,
        backend=backend,
        dynamic_batch=program.dynamic_batch,
        output=folder / f"model{spec.suffix}",
        work_dir=folder / "work",
    )
    request.work_dir.mkdir(parents=True, exist_ok=True)
    return TinyArtifact(request.output, program, load_entry(spec.export)(request))


def tiny_artifact(
    name: FormatName,
    model: str,
    precision: Precision,
    *,
    backend: str | None = None,
    maker: ProgramMaker = PYTORCH,
) -> TinyArtifact:
    """Return an artifact that is exported once in a test process; nobody may write to it."""
    return _exported(name, model, precision, backend, maker)


@cache
def _exported(
    name: FormatName, model: str, precision: Precision, backend: str | None, maker: ProgramMaker
) -> TinyArtifact:
    folder = cached_folder() / "artifacts" / maker.build.__module__ / f"{name}-{backend}" / f"{model}-{precision}"
    program = program_for(name, model, precision, backend=backend, maker=maker)
    return export_program(name, program, precision, folder, backend=backend)
