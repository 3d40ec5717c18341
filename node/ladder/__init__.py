"""The ladder: which tier and source is asked for a block, and the shell that asks."""
