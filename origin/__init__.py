"""Floor 4: publisher and treasurer."""
