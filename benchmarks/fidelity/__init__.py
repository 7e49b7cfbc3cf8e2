"""Predicted against published: how far the emulated phones are from figures that others measured."""
