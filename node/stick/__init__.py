"""A disk that is carried, as a way for titles, catalog, pulses and acks."""
