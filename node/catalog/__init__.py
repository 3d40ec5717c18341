"""What an origin publishes, as this box knows it: trust, catalog, titles."""
