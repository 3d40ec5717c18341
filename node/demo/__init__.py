"""``farcast demo``: the whole system on this machine, as separate processes."""
