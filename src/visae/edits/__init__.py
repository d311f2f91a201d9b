"""What an edit of latents is, and how edited pictures are run."""
