"""The machine that edgekit runs on."""
