"""Titles: publishing, listing, and taking them back."""
