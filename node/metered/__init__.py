"""A link whose every byte is paid for: a daily budget that is never exceeded."""
