"""Whether latents mean what is said of them: proposals from one split, each a test on pictures of another."""
