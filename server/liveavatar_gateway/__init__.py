"""LiveAvatar Gateway: one typed gRPC contract for HeyGen LiveAvatar sessions."""

__version__ = "0.1.0"
