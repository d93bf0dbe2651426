"""Load tests of the gateway: open-loop conversations, latency as users feel it, audio integrity as a verdict."""
