"""Tools of tests, chaos runs, load runs and the demo: processes, an emulator client, a caller, byte checks."""
