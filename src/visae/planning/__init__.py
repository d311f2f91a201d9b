"""What a configuration will need: disk, memory, arithmetic and hours, before anything is run."""
