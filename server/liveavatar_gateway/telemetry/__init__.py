"""Metrics, and the HTTP port that serves them. Depends on the core only."""
