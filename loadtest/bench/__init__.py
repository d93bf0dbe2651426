"""What the gateway costs and adds: CPU per second of audio and latency, beside a sender that goes without it."""
