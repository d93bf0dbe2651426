"""Emulator of HeyGen LiveAvatar in LITE mode: REST API and command WebSocket, with knobs and recordings."""
