"""Content delivery networks in front of an origin: whose they are, how they purge and what they let in."""
