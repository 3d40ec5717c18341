"""Floor 0: data files only."""
