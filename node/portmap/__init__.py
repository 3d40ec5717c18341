"""Asking a home router to let a relay's port through: PCP, NAT-PMP and UPnP-IGD."""
