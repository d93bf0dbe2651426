"""Measurement of the emulator's clock while many sessions talk; other measurements rely on that clock."""
