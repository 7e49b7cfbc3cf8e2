"""Motion sequences: a recurrent network."""
