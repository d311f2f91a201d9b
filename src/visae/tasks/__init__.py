"""What a frozen network is asked, and how it is counted what an edit does to its answer."""
