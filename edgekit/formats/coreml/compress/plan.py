"""What a recipe's ``compression:`` means at a precision: resolved, named, refused where it cannot work. Light."""

from __future__ import annotations

from edgekit.contracts import WeightPlan
from edgekit.errors import UnsupportedError
from edgekit.recipe.weights import CompressionRule
from edgekit.records import Precision, WeightCompression

DEFAULT_TARGET = 17
"""iOS; raised where the stored form needs a newer one."""

_BLOCK_SIZE, _GROUP_SIZE = 32, 16
_FLOATS: tuple[Precision, ...] = ("fp32", "fp16")
_WEIGHTS_ONLY: tuple[Precision, ...] = ("w8", "w6", "w4")
_QUANTIZED_LIMITS: Precision = "w8"
_LOSSLESS_LIMITS: Precision = "fp16"


def plan_weights(
    rule: CompressionRule | None, precision: Precision, program: Precision, asked_target: str | None
) -> WeightPlan:
    """Decide how an artifact's weights are stored, and from which program it is made.

    Args:
        rule: As in the recipe; None: integers, at ``w6`` a palette.
        precision: The artifact's.
        program: What the format lowers this precision from unless the compression says otherwise.
        asked_target: ``minimum_deployment_target`` of the recipe.

    Raises:
        UnsupportedError: A scheme that the precision, or the deployment target, cannot have.
    """
    if rule is None or (rule.name == "" and precision not in _WEIGHTS_ONLY):
        # A word beside several precisions is about those of them that hold weights in another way.
        if precision != "w6":
            compression = WeightCompression(scheme="linear")
            check_target(compression, precision, asked_target)
            return WeightPlan(name="", program=program, compression=compression)
        rule = CompressionRule(scheme="palette", name="")
    _refuse(rule, precision)
    compression = _resolved(rule, precision)
    if compression.keeps_program and compression.skip:
        raise UnsupportedError(
            f"coreml at {precision} with compression.skip",
            reason="what is stored are the integers of the quantized program, which has them already",
            instead=f"compress: [quantize: {{precision: {precision}, skip: [...]}}]",
        )
    check_target(compression, precision, asked_target)
    return WeightPlan(
        name=_name(compression) if rule.name is None else rule.name,
        program=program if compression.keeps_program else "fp32",
        compression=compression,
        judged_as=_judged_as(compression, precision),
    )


def needed_target(compression: WeightCompression, precision: Precision) -> int:
    """Return the first iOS whose ML programs hold weights this way.

    iOS16 brought ``constexpr_affine_dequantize``, ``constexpr_lut_to_dense`` and ``constexpr_sparse_to_dense``; iOS17
    quantized activations; iOS18 four-bit integers, blocks, tables by group, vectors, and one form inside another
    (coremltools' operations of each opset: ``constexpr_blockwise_shift_scale``, ``constexpr_lut_to_sparse`` ...).
    """
    if precision in _FLOATS:
        return 16 if compression.scheme == "sparse" else 15
    joint = compression.scheme != "sparse" and (compression.sparsity is not None or compression.n_m is not None)
    if joint or compression.table == "int8" or compression.cluster_dim > 1:
        return 18
    if compression.scheme == "palette":
        return 16 if compression.granularity == "per_tensor" else 18
    if precision == "w4" or compression.granularity == "per_block":
        return 18
    return 17 if precision == "int8" else 16


def check_target(compression: WeightCompression, precision: Precision, asked: str | None) -> None:
    """Refuse a deployment target that cannot hold weights this way.

    Raises:
        UnsupportedError: Names the first that can.
    """
    needed = needed_target(compression, precision)
    if asked is not None and int(asked.removeprefix("iOS")) < needed:
        name = _name(compression)
        raise UnsupportedError(
            f"coreml at {precision} ({name}) for {asked}",
            reason=f"ML programs hold it from iOS{needed} on",
            instead=f"minimum_deployment_target: iOS{needed}, or fp16",
        )


def _refuse(rule: CompressionRule, precision: Precision) -> None:
    what = f"coreml at {precision} with compression {rule.scheme}"
    dropping = rule.n_m is not None or isinstance(rule.sparsity, float)
    if precision in _FLOATS and rule.scheme != "sparse":
        raise UnsupportedError(
            what,
            reason=f"{precision} stores every weight as a float of its own",
            instead="precision: w8, w6 or w4; or scheme: sparse, which leaves zeros out",
        )
    if precision not in _FLOATS and rule.scheme == "sparse":
        raise UnsupportedError(
            what,
            reason="sparse weights keep their floats",
            instead="precision: fp16; or scheme: linear (palette) with sparsity: trained, for small weights of which "
            "zeros are left out",
        )
    if precision == "w6" and rule.scheme == "linear":
        raise UnsupportedError(
            what, reason="Core ML has integers of 4 and 8 bits", instead="scheme: palette at w6, or w8 or w4"
        )
    if rule.scheme == "coremltools" and precision != "int8":
        raise UnsupportedError(
            what,
            reason="this scheme is coremltools' own quantization of weights and activations",
            instead="precision: int8, or scheme: linear",
        )
    if rule.scheme == "coremltools" and rule.skip:
        raise UnsupportedError(
            f"{what} and skip",
            reason="coremltools picks what it quantizes by operation",
            instead=f"scheme: linear and compress: [quantize: {{precision: {precision}, skip: [...]}}]",
        )
    if precision == "int8" and (rule.scheme == "palette" or rule.granularity not in (None, "per_channel") or dropping):
        raise UnsupportedError(
            f"{what}{', which drops weights' if dropping else ''}",
            reason="the weights of an int8 program were quantized together with its activations, a scale a channel",
            instead="prune while training (compress: prune) and sparsity: trained; or a palette at w4",
        )
    if rule.values == "program" and precision != "w4":
        raise UnsupportedError(
            f"{what}, values: program", reason="a w4 program alone has few values a channel", instead="values: kmeans"
        )


def _resolved(rule: CompressionRule, precision: Precision) -> WeightCompression:
    """Make every choice that the recipe leaves open."""
    granularity, values = rule.granularity, rule.values
    if rule.scheme == "palette":
        by_word = rule.name == "" and precision == "w4"
        if granularity is None:
            granularity = "per_channel" if by_word or values == "program" else "per_tensor"
        values = values or ("program" if by_word else "kmeans")
    sparsity = rule.sparsity
    if rule.scheme == "sparse" and sparsity is None and rule.n_m is None:
        sparsity = "trained"
    return WeightCompression(
        scheme=rule.scheme,
        granularity=granularity or "per_channel",
        block_size=(rule.block_size or _BLOCK_SIZE) if granularity == "per_block" else None,
        group_size=(rule.group_size or _GROUP_SIZE) if granularity == "per_grouped_channel" else None,
        cluster_dim=rule.cluster_dim,
        values=values or "program",
        table=rule.table,
        sparsity=sparsity,
        n_m=rule.n_m,
        smallest=rule.smallest,
        skip=rule.skip,
    )


def _judged_as(compression: WeightCompression, precision: Precision) -> Precision:
    if compression.scheme == "palette" and compression.values == "trained" and not compression.drops_weights:
        return precision if compression.table == "int8" else _LOSSLESS_LIMITS
    return _QUANTIZED_LIMITS if precision in _FLOATS and compression.drops_weights else precision


def _name(compression: WeightCompression) -> str:
    """Name a way of storing weights, such as ``palette-g16-sparse50``."""
    parts: list[str] = [compression.scheme]
    usual = "per_tensor" if compression.scheme == "palette" else "per_channel"
    if compression.granularity != usual and compression.scheme in ("linear", "palette"):
        short = {"per_tensor": "tensor", "per_channel": "channel"}
        counted = f"b{compression.block_size}" if compression.block_size else f"g{compression.group_size}"
        parts.append(short.get(compression.granularity, counted))
    if compression.cluster_dim > 1:
        parts.append(f"d{compression.cluster_dim}")
    if compression.table == "int8":
        parts.append("int8")
    zeros = _zeros_name(compression)
    if compression.scheme == "sparse":
        parts = []
    return "-".join([*parts, *zeros])


def _zeros_name(compression: WeightCompression) -> list[str]:
    if compression.n_m is not None:
        return [f"sparse{compression.n_m[0]}of{compression.n_m[1]}"]
    if isinstance(compression.sparsity, float):
        return [f"sparse{100 * compression.sparsity:g}".replace(".", "p")]
    return [] if compression.sparsity is None else ["sparse"]
