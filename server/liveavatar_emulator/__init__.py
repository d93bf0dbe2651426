"""A stand-in for HeyGen LiveAvatar in LITE mode: REST API and command WebSocket, with knobs and recordings."""
