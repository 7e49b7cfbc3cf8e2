"""What the devices of a recipe can do: which artifacts run there, on how many threads, which figures they give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.budget.figures import FIGURES
from edgekit.budget.limits import Limit, limits_of, match_artifacts
from edgekit.contracts import load_entry
from edgekit.errors import RecipeError, TargetError, UnsupportedError
from edgekit.formats import format_spec
from edgekit.recipe.schema import Budget
from edgekit.records import FormatName, ModelLayer
from edgekit.targets import Device, diagnose, target_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """An artifact as far as a device cares: its id, and what runs it."""

    id: str
    format: FormatName
    backend: str | None


def refusal(device: Device, format_name: FormatName, backend: str | None) -> str | None:
    """Return why a device cannot run artifacts of a format and backend; None: it can.

    What this machine cannot run is another question, which the format's backend answers.
    """
    spec = target_spec(device.kind, place=device.name)
    format_ = format_spec(format_name)
    name = backend or format_.backends[0].name
    executes = format_.backend(backend)
    if device.kind == "host" and executes is not None and executes.not_timed_here is not None:
        return executes.not_timed_here
    if spec.refuses is not None:
        reason: str | None = load_entry(spec.refuses)(device, format_name, name)
        return reason
    if spec.runs is None or (format_name, name) in spec.runs:
        return None
    which = f"{format_.title} ({name})" if len(format_.backends) > 1 else format_.title
    return f"{spec.title} runs no {which} artifacts: {spec.why_not}"


def check_threads(devices: Iterable[Device], num_threads: int, place: str) -> None:
    """Refuse several threads on a device whose figures hold for one only.

    Raises:
        UnsupportedError: Such a device is among them.
    """
    for device in devices:
        spec = target_spec(device.kind, place=device.name)
        if num_threads > 1 and spec.one_thread is not None:
            raise UnsupportedError(
                f"{place}: {num_threads} threads on {device.name} ({spec.title})",
                reason=spec.one_thread.reason,
                instead=spec.one_thread.instead,
            )


def check_figures(
    budgets: Sequence[Budget], cells: Sequence[Cell], devices: Sequence[Device], model: ModelLayer
) -> None:
    """Refuse a budget on a figure that its target does not give, or of an artifact that does not run there.

    Raises:
        RecipeError: Such a budget; the message says what to limit instead.
    """
    by_name = {device.name: device for device in devices}
    by_id = {cell.id: cell for cell in cells}
    for index, budget in enumerate(budgets):
        for limit in limits_of(budget):
            if limit.target not in by_name:
                continue
            place = f"budgets.{index}.{limit.check}"
            device = by_name[limit.target]
            _check_figure(device, limit, model, place)
            for name in match_artifacts(budget.artifact, list(by_id), f"budgets.{index}.artifact"):
                reason = refusal(device, by_id[name].format, by_id[name].backend)
                if reason is not None:
                    raise RecipeError(f"{place}: nobody profiles {name} on {device.name}: {reason}. Drop the limit.")


def _check_figure(device: Device, limit: Limit, model: ModelLayer, place: str) -> None:
    spec = target_spec(device.kind, place=device.name)
    if limit.check not in spec.figures:
        raise RecipeError(
            f"{place}: {spec.title} ({device.name}) gives no {FIGURES[limit.check].title}; "
            f"it gives: {', '.join(spec.figures)}. Limit one of these instead."
        )
    if "emulated" in spec.kinds and model == "counts" and limit.check.startswith("latency"):
        raise RecipeError(
            f"{place}: profile.model is 'counts', which gives no time on {device.name}; "
            "write profile.model: static (or trace), or limit the instructions."
        )


def check_usable(devices: Iterable[Device]) -> None:
    """Refuse a device that cannot be used from this machine now: a missing tool, cores that are not there.

    Raises:
        TargetError: The message says what stands in the way, and the way out.
    """
    for device in devices:
        diagnosis = diagnose(device)
        if not diagnosis.usable:
            raise TargetError(f"{device.name} cannot be profiled on from here: {'; '.join(diagnosis.problems)}")


def decided_by(device: Device, model: ModelLayer) -> dict[str, Any]:
    """Return what decides a profile on a device besides the artifact, its settings and the device file."""
    spec = target_spec(device.kind, place=device.name)
    found: dict[str, Any] = {"model": model} if "emulated" in spec.kinds else {}
    if spec.reads is not None:
        found["reads"] = load_entry(spec.reads)(device)
    return found


def check_model(device: Device, model: ModelLayer | None) -> None:
    """Refuse a choice of model for a target that counts no instructions.

    Raises:
        UnsupportedError: The target is not emulated.
    """
    spec = target_spec(device.kind, place=device.name)
    if model is not None and "emulated" not in spec.kinds:
        how = "timed by a clock" if spec.kinds == ("measured",) else " or ".join(spec.kinds)
        raise UnsupportedError(
            f"--model {model} on {device.name}",
            reason=f"{spec.title} is {how}: no instructions are counted there that a model could turn into time",
            instead="an emulated target, or no --model",
        )
