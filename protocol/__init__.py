"""Floor 1: bytes, hashes, signatures, rules and message types; pure, no clock, disk, socket or randomness."""
