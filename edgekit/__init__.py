"""edgekit: one recipe to TFLite, ExecuTorch, Core ML and ONNX artifacts that were run, compared and timed."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
