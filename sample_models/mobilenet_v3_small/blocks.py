"""MobileNetV3-Small as its paper tabulates it (Howard et al. 2019, table 2), for both frameworks."""

NORM_EPS = 1e-3
"""As published."""

BLOCKS = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
"""Kernel, expanded channels, output channels, squeeze-and-excitation, hard-swish (else ReLU), stride."""
