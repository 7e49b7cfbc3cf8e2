"""Statistics of repeated runs, memory, operator tables."""
