"""Latents that serve a shortcut: they help on train, harm in some groups of pictures, and can be suppressed."""
