"""The real LiveKit server, on free ports of 127.0.0.1. A missing program is a failure, never a skip."""

from liveavatar_gateway.demo.livekit_server import LiveKitServer, livekit_server

__all__ = ["LiveKitServer", "livekit_server"]
