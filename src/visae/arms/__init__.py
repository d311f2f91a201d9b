"""The latents and directions that are claimed to matter, and those that they have to beat."""
