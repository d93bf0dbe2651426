"""Does the emulator keep time while many sessions talk? Other measurements stand on it."""
