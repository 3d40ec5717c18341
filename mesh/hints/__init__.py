"""Hints: untrusted news by HTTP and by gossip; either makes a box look sooner, neither is believed."""
