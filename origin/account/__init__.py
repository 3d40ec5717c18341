"""Accounts: whose viewing is counted, and the invites they come by."""
