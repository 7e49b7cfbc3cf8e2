"""Progress of a build on standard error: live bars on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edgekit.pipeline.stages import State
from edgekit.process import Event


class BuildProgress:
    """An observer of a build that draws. Use as a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live = sys.stderr.isatty()
        self._started: dict[str, float] = {}
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            transient=True,
            disable=not self._live,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, stage: str, state: State, detail: Event) -> None:
        """Draw one event."""
        with self._lock:
            if state == "started":
                self._start(stage)
            elif state == "progress":
                self._advance(stage, detail)
            else:
                self._end(stage, state, detail)

    def _start(self, stage: str) -> None:
        self._started[stage] = time.monotonic()
        self._tasks[stage] = self._bars.add_task(stage, total=None, detail="")
        if not self._live:
            self._console.print(f"  …  {stage}", highlight=False)

    def _advance(self, stage: str, event: Event) -> None:
        if event.get("type") == "note":
            self._console.print(f"     {stage}: {event['message']}", markup=False, highlight=False)
        if event.get("type") != "progress" or stage not in self._tasks:
            return
        step, steps = event.get("step"), event.get("steps")
        epoch, epochs = event.get("epoch", 1), event.get("epochs", 1)
        known = {} if steps is None else {"total": epochs * steps, "completed": (epoch - 1) * steps + step}
        self._bars.update(self._tasks[stage], detail=_describe(event), **known)
        if not self._live and "loss" in event and step == steps:
            self._console.print(f"     {stage}: {_describe(event)}", highlight=False)

    def _end(self, stage: str, state: State, detail: Event) -> None:
        task = self._tasks.pop(stage, None)
        if task is not None:
            self._bars.remove_task(task)
        seconds = time.monotonic() - self._started.pop(stage, time.monotonic())
        if state == "done":
            self._console.print(f"  [green]✓[/]  {stage}  [dim]{seconds:.1f} s[/]", highlight=False)
        elif state == "cached":
            self._console.print(f"  [green]✓[/]  {stage}  [dim]from the cache[/]", highlight=False)
        else:
            where = f" [dim](log: {detail['log']})[/]" if detail.get("log") else ""
            self._console.print(f"  [red]✗[/]  {stage}", highlight=False, end=" ")
            self._console.print(str(detail["message"]), markup=False, highlight=False, end=" ")
            self._console.print(where, highlight=False)


def _describe(event: Event) -> str:
    if "loss" not in event:
        return str(event.get("phase", ""))
    parts = [f"{event.get('phase', '')} {event['epoch']}/{event['epochs']}", f"loss {event['loss']:.4f}"]
    if event.get("metric") is not None:
        parts.append(f"accuracy {event['metric']:.3f}")
    if event.get("rate"):
        parts.append(f"{event['rate']:.0f} samples/s")
    return "  ".join(parts)
