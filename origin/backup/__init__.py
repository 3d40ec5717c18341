"""Backups: all that is an origin in one file, and back."""
