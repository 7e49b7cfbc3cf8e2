"""Another machine, reached with ssh and timed by its own clock."""
