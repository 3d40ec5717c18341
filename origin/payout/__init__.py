"""Payouts: what the books owe to a payee leaves the house once, or not at all."""
