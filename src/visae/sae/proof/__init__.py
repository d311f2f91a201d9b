"""Where an SAE belongs, proven by what it reconstructs."""
