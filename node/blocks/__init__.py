"""Blocks on disk: verified on the way in and on the way out, under a quota."""
