"""Apple chips: measured on a Mac that has the chip, predicted from published figures elsewhere."""
