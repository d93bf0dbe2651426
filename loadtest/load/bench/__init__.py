"""CPU per second of audio: the gateway's as a ratio to that of a bare server with the same contract."""
