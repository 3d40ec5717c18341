"""Floor 2: the LAN as a carrier."""
