"""Attacks by kind. Each is a coroutine function of an address and a time in seconds; it returns `Counts`."""
