"""Errors of measurements."""


class StageError(Exception):
    """Measurement that cannot be made; the message says why, and what to do."""
