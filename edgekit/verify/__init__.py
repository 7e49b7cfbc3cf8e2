"""Comparisons: parity, accuracy, per-layer error, precision audit, delegate coverage."""
