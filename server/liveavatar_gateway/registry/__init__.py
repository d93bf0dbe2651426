"""Ownership and state of sessions, for the process that drives them and the next."""
