"""The studio: a film from its media to encoded, written, packed and sealed files."""
