"""Looking at latents by hand: from Python, in a notebook, from the command line."""
