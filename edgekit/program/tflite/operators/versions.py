"""Up to which version each operator is read: the versions that the installed LiteRT has kernels for.

A newer version may mean another computation, which must not be taken for the one that is known.
"""

from __future__ import annotations

# fmt: off
NEWEST = {
    "ABS": 5, "ADD": 6, "ARG_MAX": 3, "ARG_MIN": 3, "AVERAGE_POOL_2D": 3, "BATCH_MATMUL": 4, "BATCH_TO_SPACE_ND": 4,
    "BIDIRECTIONAL_SEQUENCE_LSTM": 3, "BROADCAST_TO": 4, "CAST": 9, "CONCATENATION": 7, "CONV_2D": 8, "COS": 2,
    "DEPTHWISE_CONV_2D": 7, "DEPTH_TO_SPACE": 2, "DEQUANTIZE": 9, "DIV": 2, "EMBEDDING_LOOKUP": 5, "EQUAL": 5,
    "EXP": 2, "FILL": 5, "FLOOR_DIV": 3, "FLOOR_MOD": 2, "FULLY_CONNECTED": 14, "GATHER": 8, "GATHER_ND": 6,
    "GELU": 3, "GREATER": 2, "GREATER_EQUAL": 3, "L2_NORMALIZATION": 2, "LEAKY_RELU": 2, "LESS": 3, "LESS_EQUAL": 2,
    "LOG": 2, "LOGISTIC": 3, "LOG_SOFTMAX": 2, "MAXIMUM": 4, "MAX_POOL_2D": 3, "MEAN": 3, "MINIMUM": 4,
    "MIRROR_PAD": 3, "MUL": 8, "NOT_EQUAL": 4, "PACK": 5, "PAD": 6, "PADV2": 6, "QUANTIZE": 6, "RANGE": 2,
    "REDUCE_MAX": 3, "REDUCE_MIN": 3, "REDUCE_PROD": 2, "RELU": 3, "RELU6": 3, "RESIZE_BILINEAR": 4,
    "RESIZE_NEAREST_NEIGHBOR": 4, "REVERSE_V2": 4, "RSQRT": 3, "SELECT": 4, "SELECT_V2": 2, "SIGN": 2, "SIN": 2,
    "SLICE": 8, "SOFTMAX": 4, "SPACE_TO_BATCH_ND": 4, "SPACE_TO_DEPTH": 2, "SPLIT": 5, "SPLIT_V": 3, "SQRT": 2,
    "SQUARED_DIFFERENCE": 2, "SQUEEZE": 2, "STRIDED_SLICE": 8, "SUB": 5, "SUM": 2, "TANH": 3, "TILE": 3,
    "TOPK_V2": 3, "TRANSPOSE": 9, "TRANSPOSE_CONV": 5, "UNIDIRECTIONAL_SEQUENCE_LSTM": 4,
    "UNIDIRECTIONAL_SEQUENCE_RNN": 3, "UNPACK": 6,
}
# fmt: on
"""Operator -> newest version; those not listed have one version only."""


def newest(name: str) -> int:
    """Return the newest version of an operator that is read."""
    return NEWEST.get(name, 1)
