"""Target kinds: how a device is reached and an artifact is timed there."""
