"""Say what half precision has to do with a comparison that failed."""

from __future__ import annotations

from dataclasses import replace

from edgekit.records import HalfPrecision, Parity


def blame(parity: Parity, found: HalfPrecision | None) -> Parity:
    """Add to the reason of a failure which operation float16 breaks, where it does.

    Args:
        parity: Returned as it is unless it failed.
        found: What float16 does to the artifact; None: nobody looked.
    """
    if parity.status != "fail" or found is None or not found.worst or not found.keep_in_float32:
        return parity
    worst = found.worst[0]
    place = f"{worst.name!r} ({worst.type}{f', in layer {worst.layer}' if worst.layer else ''})"
    if worst.starts_overflow:
        cause = f"float16 overflows first in {place}, which gives up to {worst.max_abs:.3g}, more than 65504"
    else:
        cause = f"float16 costs most in {place}: {worst.own_sqnr_db or 0:.1f} dB by itself"
    return replace(
        parity, reason=f"{parity.reason}; {cause}. Way out: keep_float32: [{', '.join(found.keep_in_float32)}], or auto"
    )
