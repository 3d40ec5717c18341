"""Floor 2: one-way satellite as a carrier."""
