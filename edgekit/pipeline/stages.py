"""Stages: what each one reads (its key), and the child process that does it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from edgekit.errors import InterruptedByUserError
from edgekit.process import Event, run_child, stop_children
from edgekit.store.build_folder import BuildFolder
from edgekit.store.cache import StageCache, Workspace, stage_key

Result = TypeVar("Result")
State = Literal["started", "progress", "cached", "done", "failed"]


class Observer(Protocol):
    """Whoever watches a build. Called from several threads."""

    def __call__(self, stage: str, state: State, detail: Event) -> None:
        """Take note of a stage's state; ``detail`` holds a progress event, or ``message`` of a failure."""
        ...


def ignore_events(stage: str, state: State, detail: Event) -> None:
    """Watch nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCall:
    """One stage to run.

    Attributes:
        name: Such as ``export:tflite/int8``.
        reads: Everything that decides what comes out, JSON-ready.
        entry: The function that does it.
        request: Makes its argument, given where to work.
        timeout_s: Limit of the child process.
        launcher: Modules put before the child's (``torch.distributed.run`` and its options, for one).
        threads: Threads of the numerical libraries in the child; None: theirs to choose.
    """

    name: str
    reads: Mapping[str, Any]
    entry: str
    request: Callable[[Workspace], object]
    timeout_s: float | None = None
    launcher: Sequence[str] = ()
    threads: int | None = None

    @property
    def key(self) -> str:
        """The digest of what the stage reads."""
        return stage_key(self.name, self.reads)


class StageRunner:
    """Runs stages through the cache.

    Args:
        cache: Where results lie.
        folder: The build folder, for logs.
        observer: Told of every stage.
        force: Do the work anew.
    """

    def __init__(self, cache: StageCache, folder: BuildFolder, observer: Observer, *, force: bool) -> None:
        self._cache = cache
        self._folder = folder
        self._observer = observer
        self._force = force
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Stop the children that run, and refuse to start others."""
        self._cancelled.set()
        stop_children()

    def run(self, call: StageCall, kind: type[Result]) -> Result:
        """Return what a stage makes, from the cache where it has run before.

        Raises:
            EdgekitError: The stage failed.
            InterruptedByUserError: The build is being stopped.
        """
        key = call.key
        found = None if self._force else self._cache.find(call.name, key, kind)
        if found is not None:
            self._observer(call.name, "cached", {})
            return found
        with self._cache.producing(key, anew=self._force) as workspace:
            found = None if self._force else self._cache.find(call.name, key, kind)
            if found is not None:  # another build made it while this one waited for the lock
                self._observer(call.name, "cached", {})
                return found
            if self._cancelled.is_set():
                raise InterruptedByUserError(f"{call.name} was not started: the build is being stopped")
            self._observer(call.name, "started", {})
            result = run_child(
                call.entry,
                call.request(workspace),
                kind,
                stage=call.name,
                log=self._fresh_log(call.name),
                timeout_s=call.timeout_s,
                on_event=lambda event: self._observer(call.name, "progress", event),
                launcher=call.launcher,
                environment=_thread_settings(call.threads),
            )
            committed = self._cache.commit(call.name, key, result, call.reads)
        self._observer(call.name, "done", {})
        return committed

    def _fresh_log(self, stage: str) -> Path:
        log = self._folder.log(stage)
        log.unlink(missing_ok=True)
        return log


def _thread_settings(threads: int | None) -> dict[str, str]:
    return {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def default_jobs() -> int:
    """Return how many exports run side by side unless the user says: one a core that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
