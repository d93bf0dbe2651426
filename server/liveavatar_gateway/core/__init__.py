"""Rules of sessions and speech as values and functions: no I/O, no clock, no loop, standard library only."""
