"""Handwritten digits, 8×8 pixels: the demo."""
