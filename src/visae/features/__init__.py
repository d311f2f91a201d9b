"""What latents respond to: sparse codes, statistics, exemplars, concept scores."""
