"""Processes of a measurement, each on its core, and the clocks of both."""
