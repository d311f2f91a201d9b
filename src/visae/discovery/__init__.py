"""Which latents a network uses for which class: estimated for all by gradients, proven for some by edits."""
