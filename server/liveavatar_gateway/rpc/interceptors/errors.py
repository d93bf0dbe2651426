"""Statuses for whatever a call raises."""

import asyncio
from typing import Any, Final, NoReturn

import grpc

from liveavatar_gateway import incidents
from liveavatar_gateway.core.errors import GatewayError, InternalError
from liveavatar_gateway.rpc.errors import CODES, fit_to_trailers, status_of, with_incident
from liveavatar_gateway.rpc.interceptors.handlers import Behaviour, Context, Continuation, Handler, wrapped

_DETAILS_KEY: Final = "grpc-status-details-bin"


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """End of each failed call with a status; what callers may not see is logged under an incident id."""

    async def intercept_service(  # noqa: D102 - grpc's
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        return wrapped(await continuation(handler_call_details), with_status)


def with_status(behaviour: Behaviour) -> Behaviour:
    """Return a behaviour that aborts its call with the status of any error."""

    async def call(requests: Any, context: Context) -> Any:
        try:
            return await behaviour(requests, context)
        except GatewayError as error:
            await abort(context, error)
        except ExceptionGroup as group:
            refusal = find_refusal(group)
            if refusal is not None:
                await abort(context, refusal)
            faults = group.split(_is_end_of_call)[1]
            if faults is not None:
                await abort(context, _incident(faults))
        except grpc.aio.AbortError as aborted:
            _release_at_end(aborted)
            raise
        except grpc.RpcError:
            raise
        except Exception as fault:  # noqa: BLE001 - the root of a call: whatever it is ends here, logged
            # A caller that is gone, or a server that was stopped, reads no status and is no fault of the gateway.
            if not _is_end_of_call(fault):
                await abort(context, _incident(fault))

    return call


async def abort(context: Context, error: GatewayError) -> NoReturn:
    """End a call with the status and the details of an error."""
    if error.detail:
        error = with_incident(error, incidents.report("rpc.refused", reason=error.reason, detail=error.detail))
    error = fit_to_trailers(error)
    metadata = ((_DETAILS_KEY, status_of(error).SerializeToString()),)
    try:
        await context.abort(CODES[type(error)], error.message, metadata)
    except grpc.aio.AbortError as aborted:
        _release_at_end(aborted)
        raise
    raise AssertionError("unreachable: abort raises")


def _release_at_end(aborted: grpc.aio.AbortError) -> None:
    """Cut the references of an error to the frames of its call, once the call is over.

    gRPC keeps the error in the state of the call, to which the frames refer. Such a cycle of some hundred objects
    waits for the garbage collector; a flood of refused calls would start it often, and all calls wait meanwhile.
    """

    def release(_: object) -> None:
        aborted.__traceback__ = aborted.__context__ = None

    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in a task
    task.add_done_callback(release)


def _is_end_of_call(error: BaseException) -> bool:
    """Return whether gRPC raised an error because the call has ended: caller gone, or server stopped.

    The error for a stopped server has no public name; of the public ones, misuse and `abort` itself remain.
    """
    return isinstance(error, grpc.aio.BaseError) and not isinstance(
        error, grpc.aio.UsageError | grpc.aio.AbortError
    )


def find_refusal(group: ExceptionGroup[Any]) -> GatewayError | None:
    """Return the first error of the gateway's own tree among the errors of several tasks."""
    for error in group.exceptions:
        found = find_refusal(error) if isinstance(error, ExceptionGroup) else error
        if isinstance(found, GatewayError):
            return found
    return None


def _incident(fault: BaseException) -> InternalError:
    incident = incidents.report_fault("rpc.fault", fault)
    return InternalError(f"a fault of the gateway; its log has it under incident {incident}", incident=incident)
