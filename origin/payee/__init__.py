"""Payees: who is paid, and how."""
