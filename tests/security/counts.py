"""Numbers that an attacker counts: what it sent, and how it was answered."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


@dataclass(slots=True)
class Counts:
    """Deeds of an attacker, and their outcomes."""

    sent: int = 0
    """Calls, frames or connections, whichever the attack is made of."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Reasons of refusals, "closed" for connections that the gateway ended, "OK" for what was accepted."""

    def refused(self, error: grpc.aio.AioRpcError) -> None:
        """Count a refusal by its reason, or by its status where gRPC itself refused."""
        self.outcomes[_reason(error)] += 1

    def dumps(self) -> str:
        """Return the numbers as JSON."""
        return json.dumps({"sent": self.sent, "outcomes": self.outcomes})

    @classmethod
    def loads(cls, text: str) -> Self:
        """Read `dumps`."""
        values = json.loads(text)
        return cls(values["sent"], Counter(values["outcomes"]))

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.most_common(3))
        return f"{self.sent} sent: {ends or 'no answer'}"


def _reason(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return error.code().name
