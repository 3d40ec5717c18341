"""Trust: the root, and what it tells every box of this origin."""
