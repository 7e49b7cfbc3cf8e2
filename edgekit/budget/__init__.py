"""Budgets, baselines and their verdicts."""
