"""From pictures on disk to the index: one row a picture."""
