"""The HTML report and tables."""
