"""Floor 4: a community operator's box."""
