"""Credential in the metadata of calls that the client library lacks."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: list[tuple[str, str]]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class BearerInterceptor(grpc.UnaryUnaryClientInterceptor):
    """Adds metadata to each unary call; gRPC's own call credentials need TLS even on loopback."""

    def __init__(self, metadata: Sequence[tuple[str, str]]) -> None:
        self._metadata = metadata

    def intercept_unary_unary(  # noqa: D102 - grpc's
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        details = _Details(
            client_call_details.method,
            client_call_details.timeout,
            [*(client_call_details.metadata or ()), *self._metadata],
            client_call_details.credentials,
            client_call_details.wait_for_ready,
            client_call_details.compression,
        )
        return continuation(details, request)
