"""Proof that abuse cannot hurt a gateway: attacks, the cost of gRPC's listener, fuzzing, and secrets."""

from typing import Final

from acceptance.limits.attacks import BEHIND_ENVOY, DIRECTLY
from acceptance.limits.fuzzing import FUZZING
from acceptance.limits.listener import LISTENER

LINES: Final = (DIRECTLY, BEHIND_ENVOY, LISTENER, FUZZING)
