"""MobileNetV3-Small: squeeze-and-excitation and hard-swish."""
