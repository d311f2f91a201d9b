"""Settings: parsed once, frozen, documented from one source."""
