"""ONNX, run by ONNX Runtime."""

import os

# ONNX Runtime 1.29 and newer report their use to their maker unless told not to, on a thread of their own, from the
# moment they are imported. Nothing leaves the user's machine through edgekit that the user did not ask for.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
