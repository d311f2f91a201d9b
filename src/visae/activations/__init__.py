"""The activation store: write, check, read in order, read shuffled."""
