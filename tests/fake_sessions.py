"""A runtime of our own: artifacts are JSON files that say how it behaves. Implements ``edgekit.contracts.Session``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from edgekit.errors import ArtifactError, DataError, ToolError, UnsupportedError
from edgekit.records import OperatorTime, RuntimeInfo, TensorSpec

OPEN = "fake_sessions:open_session"


def write_artifact(path: Path, **behaviour: object) -> Path:
    """``gain``, ``offset`` (y = gain x + offset), ``busy_ms``, ``load_ms``, ``hold_bytes``, ``burst_bytes``, ``abort``,
    ``nan_in``, ``stateful``, ``operators``."""
    path.write_text(json.dumps(behaviour), encoding="utf-8")
    return path


def open_session(path: Path, num_threads: int) -> FakeSession:
    try:
        return FakeSession(json.loads(path.read_text(encoding="utf-8")), num_threads)
    except ValueError as error:
        raise ArtifactError(f"{path}: expected JSON; {error}") from error


class FakeSession:
    def __init__(self, behaviour: dict[str, float], num_threads: int) -> None:
        self.behaviour = behaviour
        self.inputs = (TensorSpec(name="x", dtype="float32", shape=(None, 4)),)
        self.outputs = (TensorSpec(name="y", dtype="float32", shape=(None, 4)),)
        self.runtime = RuntimeInfo(name="fake", version="1", delegates=(f"{num_threads} threads",))
        self.load_ms = behaviour.get("load_ms")
        self.held = bytearray(int(behaviour.get("hold_bytes", 0)))
        self.batches: list[int] = []
        self.closed = False

    def run(self, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        if inputs[0].shape[1:] != (4,):
            raise DataError(f"x: expected [N, 4]; received {inputs[0].shape}")
        if self.behaviour.get("abort"):
            os.abort()
        bytearray(int(self.behaviour.get("burst_bytes", 0)))
        end = time.perf_counter() + self.behaviour.get("busy_ms", 0.0) / 1e3
        while time.perf_counter() < end:
            pass
        y = inputs[0] * np.float32(self.behaviour.get("gain", 1.0)) + np.float32(self.behaviour.get("offset", 0.0))
        if self.behaviour.get("stateful"):
            y = y + np.float32(len(self.batches))
        if len(self.batches) == self.behaviour.get("nan_in", -1):
            y[0, 1] = np.nan
        self.batches.append(len(y))
        return (y,)

    def prepare(self, inputs: Sequence[np.ndarray]) -> Callable[[], None]:
        def execute() -> None:
            self.run(inputs)

        return execute

    def operator_times(self, inputs: Sequence[np.ndarray], num_runs: int) -> tuple[OperatorTime, ...]:
        if self.behaviour.get("operators") == "broken":
            raise ToolError("the profiler failed")
        if not self.behaviour.get("operators"):
            raise UnsupportedError("operator times", reason="the fake runtime has no profiler", instead="another one")
        return (OperatorTime(name="y", type="MUL", delegated=True, time_ms=0.5, share=1.0),)

    def close(self) -> None:
        self.held = bytearray()
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
