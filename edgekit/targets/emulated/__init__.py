"""Emulated phones and boards: real aarch64 runtimes run, what they execute is counted, a model gives the time."""
