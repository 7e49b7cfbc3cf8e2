"""Programs: the framework-free hand-over between frameworks and formats."""
