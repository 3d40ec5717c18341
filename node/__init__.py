"""Floor 3: what every box runs."""
