"""Callers' own LiveKit rooms, on the LiveKit server of the gateway's settings."""
