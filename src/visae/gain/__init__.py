"""What an SAE adds: its latents beside those of dictionaries that learned less, or nothing."""
