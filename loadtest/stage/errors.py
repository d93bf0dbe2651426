"""Errors before or beside a measurement."""


class StageError(Exception):
    """The measurement cannot be made; the message says why and what to do."""
