"""Method handlers of grpc.aio with another behaviour."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

# Generic in the stubs alone: with parameters they can only be named in quotes.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Behaviour: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
"""Body of a call: takes the requests and the context; returns the response, or None after writing responses."""


def wrapped(handler: Handler, wrap: Callable[[Behaviour], Behaviour]) -> Handler:
    """Return a handler whose behaviour is wrapped.

    Args:
        handler: Handler behind `BoundsInterceptor`, which makes every request a stream and every behaviour a
            coroutine function; None for a method that no service has.
        wrap: Returns the new behaviour.
    """
    if handler is None:
        return None
    assert handler.request_streaming  # noqa: S101 - see above
    if handler.response_streaming:
        behaviour, make = handler.stream_stream, grpc.stream_stream_rpc_method_handler
    else:
        behaviour, make = handler.stream_unary, grpc.stream_unary_rpc_method_handler
    assert inspect.iscoroutinefunction(behaviour)  # noqa: S101 - see above
    return make(
        wrap(behaviour),
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
