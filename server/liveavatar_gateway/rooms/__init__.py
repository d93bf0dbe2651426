"""Rooms of the callers' own, on the LiveKit server of the gateway's settings."""
