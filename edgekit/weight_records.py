"""How an artifact's file holds its weights, with every choice made: what a recipe's ``compression:`` comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CompressionScheme = Literal["linear", "palette", "sparse", "coremltools"]
CompressionGranularity = Literal["per_tensor", "per_channel", "per_block", "per_grouped_channel"]
TableValues = Literal["program", "kmeans", "trained"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightCompression:
    """How weights are stored.

    Attributes:
        scheme: ``linear``: integers and scales. ``palette``: places in a table of values. ``sparse``: the values that
            are not zero, and where they stand. ``coremltools``: its own quantization of weights and activations,
            calibrated by running the converted model.
        granularity: What shares a scale or a table.
        block_size: ``per_block``: so many weights along the input axis share a scale.
        group_size: ``per_grouped_channel``: so many output channels share a table.
        cluster_dim: An entry of a table holds the weights of so many neighbouring output channels.
        values: Where a table's values come from: the grid of the quantized ``program``, ``kmeans`` of the float
            weights, or ``trained``: the weights take no more values than the table holds; those that take more stay
            floats.
        table: ``int8``: a table's values are integers with a scale of their own.
        sparsity: ``trained``: zeros that the weights have are not stored, besides what ``scheme`` says. A share: so
            many of the smallest weights of each layer become zero first. None: zeros are stored like other values.
        n_m: Of every ``m`` neighbours along the input axis the ``n`` smallest become zero first; None: no such pattern.
        smallest: Weights with fewer elements stay as they are.
        skip: Layers whose weights stay as they are.
    """

    scheme: CompressionScheme
    granularity: CompressionGranularity = "per_channel"
    block_size: int | None = None
    group_size: int | None = None
    cluster_dim: int = 1
    values: TableValues = "program"
    table: Literal["float", "int8"] = "float"
    sparsity: Literal["trained"] | float | None = None
    n_m: tuple[int, int] | None = None
    smallest: int = 512
    skip: tuple[str, ...] = ()

    @property
    def keeps_program(self) -> bool:
        """Whether what is stored are the very values of the quantized program."""
        as_quantized = self.scheme == "linear" and self.granularity == "per_channel"
        as_table = self.scheme == "palette" and self.values == "program"
        return (as_quantized or as_table) and not self.drops_weights

    @property
    def drops_weights(self) -> bool:
        """Whether weights that training left are set to zero."""
        return self.n_m is not None or isinstance(self.sparsity, float)
