"""A Starlink dish asked how it stands: its own gRPC address on this side of the link."""
