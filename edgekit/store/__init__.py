"""The stage cache and build folders."""
