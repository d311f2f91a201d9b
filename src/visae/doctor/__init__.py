"""A look at a study before anything runs: what is fine, what is odd, what is wrong. Reads, and changes nothing."""
