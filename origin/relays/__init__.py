"""Relays as their origin sees them: who stands in the directory."""
