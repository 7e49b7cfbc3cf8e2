"""The machine that edgekit runs on, timed by a clock."""
