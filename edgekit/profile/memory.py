"""Resident memory of this process: now, and at its highest since a moment.

On Linux the kernel keeps the high-water mark (``VmHWM``) itself, and ``/proc/self/clear_refs`` resets it (proc(5)):
right to some pages a core, and free of cost. Elsewhere a thread samples the resident size, which can miss a short peak.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_HIGH_WATER_MARK = "5"
_COUNTER_ERROR_BYTES = 1 << 20  # the kernel's counters are summed lazily, some pages a core


def resident_bytes() -> int:
    """Return the resident set size of this process in bytes."""
    return int(psutil.Process().memory_info().rss)


def release_free_memory() -> None:
    """Give freed memory back to the system, so that a baseline does not hold what an earlier model has left."""
    gc.collect()
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)


class PeakMemory:
    """Follow the highest resident size between entering and leaving.

    Attributes:
        method: ``kernel high-water mark`` or ``sampled every 1 ms``.
        baseline: Resident bytes on entering.
        peak: Highest resident bytes, set on leaving.

    Example:
        >>> with PeakMemory() as memory:
        ...     block = bytearray(10_000_000)
        >>> memory.peak - memory.baseline > 9_000_000
        True
    """

    def __init__(self) -> None:
        self.baseline = 0
        self.peak = 0
        self.method = ""
        self._sampler: _Sampler | None = None

    @property
    def sampled(self) -> bool:
        """Whether a thread looks at the size now and then, for want of the kernel's own mark."""
        return self._sampler is not None

    def __enter__(self) -> PeakMemory:
        if _reset_high_water_mark():
            self.method = "kernel high-water mark"
        else:
            self._sampler = _Sampler()
            self._sampler.start()
            self.method = f"sampled every {_Sampler.PERIOD_S * 1e3:g} ms"
        self.baseline = resident_bytes()
        return self

    def __exit__(self, *_: object) -> None:
        now = resident_bytes()
        highest = self._sampler.stop() if self._sampler is not None else _status_bytes("VmHWM")
        self.peak = max(now, highest, self.baseline)


class _Sampler(threading.Thread):
    PERIOD_S = 1e-3

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._done = threading.Event()
        self._highest = 0

    def run(self) -> None:
        while not self._done.wait(self.PERIOD_S):
            self._highest = max(self._highest, resident_bytes())

    def stop(self) -> int:
        self._done.set()
        self.join()
        return self._highest


def _reset_high_water_mark() -> bool:
    """Say whether the kernel's mark now starts from the present size."""
    try:
        _CLEAR_REFS.write_text(_RESET_HIGH_WATER_MARK, encoding="ascii")
    except OSError:  # not Linux, a locked-down container, or a kernel without the feature
        return False
    # Sandboxes exist that take the write and do nothing.
    return 0 < _status_bytes("VmHWM") <= resident_bytes() + _COUNTER_ERROR_BYTES


def _status_bytes(key: str) -> int:
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0
