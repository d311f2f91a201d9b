"""What an edit of latents is, and the network resumed after it."""
