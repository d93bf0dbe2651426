"""Detection of forks of a process that uses gRPC. gRPC's own fork handling is turned off.

Imported before all modules that import gRPC, which reads its environment at import.
"""

import os
import sys

_SETTING = "GRPC_ENABLE_FORK_SUPPORT"

if "grpc" not in sys.modules and _SETTING not in os.environ:
    # grpc/grpc#22624, grpc/grpc#19793: in a fork with live streams gRPC's own handler deadlocks or crashes, about
    # one time in five (grpcio 1.85), before the program can react. Drop this when the handler is reliable.
    os.environ[_SETTING] = "0"
    import grpc

    del os.environ[_SETTING]
else:
    import grpc

from liveavatar.gateway.errors import ForkedClient  # noqa: E402  it imports gRPC


def require_no_fork(pid: int) -> None:
    """Refuse to continue in a fork of the process `pid`.

    Raises:
        ForkedClient: the current process has another id.
    """
    if os.getpid() != pid:
        raise ForkedClient(
            f"process {pid} used this library and then forked into this one, {os.getpid()}, where its threads and "
            "connections are missing; create clients only after the fork, or start processes with "
            "multiprocessing's 'spawn' method",
            code=grpc.StatusCode.FAILED_PRECONDITION,
            metadata={"pid": str(pid), "fork_pid": str(os.getpid())},
        )
