"""What latents have to do with single causes: pairs of pictures that differ in one, and edits read by probes of all."""
