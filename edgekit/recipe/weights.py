"""``export.compression``: how a Core ML package holds weights, and which settings contradict each other.

The precision says how many bits a weight takes (``w8``, ``w6``, ``w4``; ``int8`` with activations; ``fp16``: none are
saved on values); this says how they are spent. What a precision cannot have is refused by the format.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from edgekit.recipe.section import LayerRules
from edgekit.records import CompressionGranularity, CompressionScheme, TableValues

WORDS = ("linear", "palette")
"""Schemes that a recipe may name by the word alone; the artifact is called by its precision then."""

_GRANULARITIES: dict[str, tuple[str, ...]] = {
    "linear": ("per_tensor", "per_channel", "per_block"),
    "palette": ("per_tensor", "per_channel", "per_grouped_channel"),
}


class CompressionRule(LayerRules):
    """How weights are stored (Core ML)."""

    scheme: CompressionScheme
    """``linear``: integers and scales. ``palette``: places in a table of values. ``sparse``: only weights that are not
    zero. ``coremltools``: its own ``int8``, activations calibrated on the converted model."""
    name: str | None = Field(default=None, pattern=r"^([a-z0-9][a-z0-9-]*)?$")
    """The artifact's name after the plus sign (``coreml/w4+<name>``); made from the settings unless given."""
    granularity: CompressionGranularity | None = None
    """What shares a scale (``linear``: ``per_channel`` unless given) or a table (``palette``: ``per_tensor``)."""
    block_size: int | None = Field(default=None, ge=2)
    """``per_block``: so many weights along the input axis share a scale; 32 unless given."""
    group_size: int | None = Field(default=None, ge=1)
    """``per_grouped_channel``: so many output channels share a table; 16 unless given."""
    cluster_dim: int = Field(default=1, ge=1, le=16)
    """Vector palettes: one entry of the table holds the weights of so many neighbouring output channels."""
    values: TableValues | None = None
    """Where a table's values come from: ``kmeans`` of the float weights (also exact where they take few values), the
    grid of the quantized ``program`` (``w4`` per channel), or ``trained``: exactly those that clustering left; a layer
    that takes more than the table holds stays in floating point."""
    table: Literal["float", "int8"] = "float"
    """``int8``: the values of a table are integers with a scale of their own."""
    sparsity: Literal["trained"] | Annotated[float, Field(gt=0, lt=1)] | None = None
    """``trained``: zeros that the weights have are left out of the file. A share: so many of the smallest weights of
    each layer become zero first."""
    n_m: tuple[int, int] | None = None
    """``[2, 4]``: two of every four neighbours along the input axis become zero first."""
    smallest: int = Field(default=512, ge=2)
    """Weights with fewer elements stay as they are."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        self._check_sharing()
        self._check_table()
        self._check_zeros()
        return self

    def _check_sharing(self) -> None:
        allowed = _GRANULARITIES.get(self.scheme, ())
        if self.granularity is not None and self.granularity not in allowed:
            listed = f"one of {', '.join(allowed)}" if allowed else "no granularity"
            raise ValueError(f"expected {listed} with scheme: {self.scheme}; received granularity: {self.granularity}")
        for key, granularity in (("block_size", "per_block"), ("group_size", "per_grouped_channel")):
            if getattr(self, key) is not None and self.granularity != granularity:
                raise ValueError(
                    f"expected {key} with granularity: {granularity} only; received granularity: "
                    f"{self.granularity or 'none'}. Write granularity: {granularity}, or leave {key} out"
                )

    def _check_table(self) -> None:
        given = [
            f"{key}: {value}"
            for key, value, plain in (
                ("cluster_dim", self.cluster_dim, 1),
                ("values", self.values, None),
                ("table", self.table, "float"),
            )
            if value != plain
        ]
        if given and self.scheme != "palette":
            raise ValueError(f"expected {', '.join(given)} with scheme: palette only; received scheme: {self.scheme}")
        if self.values == "program" and self.granularity not in (None, "per_channel"):
            raise ValueError(
                "expected values: program with granularity: per_channel, because the program's grid differs from "
                f"channel to channel; received granularity: {self.granularity}. Write values: kmeans"
            )
        if self.cluster_dim > 1 and self.granularity == "per_channel":
            raise ValueError(
                "expected granularity: per_tensor or per_grouped_channel with cluster_dim, whose vectors run across "
                "channels; received granularity: per_channel"
            )
        if self.granularity == "per_grouped_channel" and (self.group_size or 16) % self.cluster_dim:
            raise ValueError(
                f"expected a group_size that is a multiple of cluster_dim ({self.cluster_dim}); received "
                f"{self.group_size or 16}"
            )

    def _check_zeros(self) -> None:
        if self.sparsity is not None and self.n_m is not None:
            raise ValueError("expected sparsity or n_m, which both say what becomes zero; received both")
        if self.n_m is not None and not 0 < self.n_m[0] < self.n_m[1]:
            raise ValueError(f"expected n_m: [n, m] with 0 < n < m; received {list(self.n_m)}")
        if self.scheme == "coremltools" and (self.sparsity is not None or self.n_m is not None):
            raise ValueError("expected no sparsity or n_m with scheme: coremltools, which stores every weight")
        if self.cluster_dim > 1 and (self.sparsity is not None or self.n_m is not None):
            raise ValueError(
                "expected cluster_dim: 1 with sparsity or n_m: a vector with one zero in it cannot be left out; "
                f"received cluster_dim: {self.cluster_dim}"
            )


def rule_of_word(value: object) -> object:
    """Let ``compression: palette`` stand for the mapping with that scheme, whose artifact has no name of its own."""
    return {"scheme": value, "name": ""} if value in WORDS else value


Compression = Annotated[
    CompressionRule,
    BeforeValidator(rule_of_word, json_schema_input_type=Literal["linear", "palette"] | CompressionRule),
]
"""``linear``, ``palette``, or a mapping with every choice."""
