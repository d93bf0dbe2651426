"""What a caller asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from liveavatar_gateway.upstream.model import AvatarRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a caller asked for."""

    avatar: AvatarRequest
    detach_grace_s: float
    """How long it lives while nobody holds it."""
    labels: Mapping[str, str] = field(default_factory=dict)
