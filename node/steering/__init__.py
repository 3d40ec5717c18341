"""Steering: how a player without a node finds its way to the next tier (HLS and DASH content steering)."""
