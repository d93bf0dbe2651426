"""Forks of a process that uses gRPC: gRPC's own handling is turned off, and ours names the fork.

Imported before anything that imports gRPC, which reads its environment at that moment.
"""

import os
import sys

_SETTING = "GRPC_ENABLE_FORK_SUPPORT"

if "grpc" not in sys.modules and _SETTING not in os.environ:
    # grpc/grpc#22624, grpc/grpc#19793: in a fork gRPC's own handler deadlocks or crashes, about one time in five
    # with live streams (grpcio 1.85), before the program can say anything. Drop this when it no longer does.
    os.environ[_SETTING] = "0"
    import grpc

    del os.environ[_SETTING]
else:
    import grpc

from liveavatar.gateway.errors import ForkedClient  # noqa: E402  it imports gRPC


def require_no_fork(pid: int) -> None:
    """Refuse to go on in a fork of the process `pid`.

    Raises:
        ForkedClient: this is another process.
    """
    if os.getpid() != pid:
        raise ForkedClient(
            f"process {pid} used this library and then forked into this one, {os.getpid()}, where its threads and "
            "connections are missing; make clients only after the fork, or start processes with "
            "multiprocessing's 'spawn' method",
            code=grpc.StatusCode.FAILED_PRECONDITION,
            metadata={"pid": str(pid), "fork_pid": str(os.getpid())},
        )
