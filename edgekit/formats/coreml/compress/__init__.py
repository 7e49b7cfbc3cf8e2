"""Weights made small: what is planned (light), and the passes that carry it out (they import coremltools)."""
