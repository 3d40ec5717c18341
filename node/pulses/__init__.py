"""Pulses on their way home: made, kept, carried, acked."""
