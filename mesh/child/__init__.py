"""Programs of ours in processes of their own, supervised: libraries that must not harm a box live there."""
