"""Sentences with a padding mask: embedding, attention, two integer inputs."""
