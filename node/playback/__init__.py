"""The player's side of a node: the gateway and what it learns of watching."""
