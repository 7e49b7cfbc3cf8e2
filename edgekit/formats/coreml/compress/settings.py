"""What fits one weight: the asked way of storing it, or the nearest that its shape and size allow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.formats.coreml.compress.candidates import Candidate
from edgekit.formats.coreml.compress.kmeans import widened
from edgekit.records import CompressionGranularity, Precision, WeightCompression

_NO_SMALLER = "as floats: a table would take more room than it saves"
BITS: dict[Precision, int] = {"fp32": 32, "fp16": 16, "int8": 8, "w8": 8, "w6": 6, "w4": 4}
"""Precision -> bits of a stored weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How one weight is stored.

    Attributes:
        bits: Of a weight, or of its place in a table.
        granularity: What shares a scale or a table.
        group: Output channels that share a table; None: all.
        block: Weights along the input axis that share a scale; None: no blocks.
        vector: Neighbouring output channels that an entry of the table holds.
        stored: Whether it is stored in another way at all.
        instead: Why not as asked, as a clause; None: as asked.
    """

    candidate: Candidate
    bits: int
    granularity: CompressionGranularity
    group: int | None = None
    block: int | None = None
    vector: int = 1
    stored: bool = True
    instead: str | None = None


def least_zeros(precision: Precision) -> float:
    """Return the share of zeros from which on leaving them out saves more than the mask of one bit a weight costs."""
    return 1 / BITS[precision]


def magnitude_threshold(candidate: Candidate, share: float) -> float:
    """Return the magnitude up to which weights become zero so that a share of them is."""
    magnitudes = np.abs(widened(candidate.values)).reshape(-1)
    dropped = round(share * magnitudes.size)
    return float(np.partition(magnitudes, dropped - 1)[dropped - 1]) if dropped else 0.0


def choose(candidate: Candidate, compression: WeightCompression, precision: Precision) -> Choice:
    """Choose how a weight is stored."""
    bits = BITS[precision]
    if compression.scheme == "palette":
        return _choose_table(candidate, compression, bits)
    if compression.scheme == "linear" and compression.granularity == "per_block":
        return _choose_blocks(candidate, compression.block_size or 1, bits)
    return Choice(candidate=candidate, bits=bits, granularity=compression.granularity)


def _choose_blocks(candidate: Candidate, size: int, bits: int) -> Choice:
    inputs = candidate.values.shape[candidate.input_axis]
    if inputs % size:
        reason = f"a scale a channel: {inputs} inputs are no multiple of {size}"
        return Choice(candidate=candidate, bits=bits, granularity="per_channel", instead=reason)
    return Choice(candidate=candidate, bits=bits, granularity="per_block", block=size)


def _choose_table(candidate: Candidate, compression: WeightCompression, bits: int) -> Choice:
    if compression.values == "program":
        return _choose_program_table(candidate, bits)
    vector, reasons = compression.cluster_dim, []
    if vector > 1 and _channels(candidate) % vector:
        reasons.append(f"a value an entry: {_channels(candidate)} channels are no multiple of {vector}")
        vector = 1
    group = 1 if compression.granularity == "per_channel" else compression.group_size
    if group is not None and candidate.outputs % group:
        reasons.append(f"one table: {candidate.outputs} channels are no multiple of {group}")
        group = None
    if group is not None and not _is_smaller(candidate, bits, vector, group):
        reasons.append("one table: more of them would take more room than they save")
        group = None
    stored = _is_smaller(candidate, bits, vector, group)
    if not stored:
        reasons = [_NO_SMALLER]
    elif compression.values == "trained" and (most := _most_values(candidate, group)) > 2**bits:
        stored, reasons = False, [f"as floats: its weights take {most} values, more than {2**bits}"]
    return Choice(
        candidate=candidate,
        bits=bits,
        granularity="per_grouped_channel" if group else "per_tensor",
        group=group,
        vector=vector,
        stored=stored,
        instead="; ".join(reasons) or None,
    )


def _choose_program_table(candidate: Candidate, bits: int) -> Choice:
    """Hold a channel's few values in a table of its own; where that is no smaller, float16 holds them exactly too."""
    stored = _is_smaller(candidate, bits, vector=1, group=1)
    return Choice(
        candidate=candidate,
        bits=bits,
        granularity="per_grouped_channel",
        group=1,
        stored=stored,
        instead=None if stored else _NO_SMALLER,
    )


def _channels(candidate: Candidate) -> int:
    """Output channels of one group of a convolution, across whose borders no vector may run."""
    return candidate.outputs // candidate.groups if candidate.output_axis == 0 else candidate.outputs


def _is_smaller(candidate: Candidate, bits: int, vector: int, group: int | None) -> bool:
    tables = 1 if group is None else candidate.outputs // group
    item = candidate.values.itemsize
    size = tables * 2**bits * vector * item + candidate.values.size // vector * bits / 8
    return bool(size < candidate.values.size * item)


def _most_values(candidate: Candidate, group: int | None) -> int:
    """Return how many values the weights of a group of channels take, where they take the most."""
    size = candidate.outputs if group is None else group
    channels = np.moveaxis(widened(candidate.values), candidate.output_axis, 0)
    return max(len(np.unique(channels[start : start + size])) for start in range(0, candidate.outputs, size))
