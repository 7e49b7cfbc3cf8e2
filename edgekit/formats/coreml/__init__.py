"""Core ML (ML programs)."""
