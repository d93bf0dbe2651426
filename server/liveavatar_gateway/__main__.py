"""Entry point of `liveavatar-gateway`: sets what gRPC reads at import, then hands over to the command line."""

import os


def _open_standard_streams() -> None:
    """Open what the parent left closed of descriptors 0 to 2, so that no database gets standard error's number."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number, which is this one.
            os.open(os.devnull, os.O_RDWR)


def main() -> None:
    """Run the command line."""
    _open_standard_streams()
    # Read once when grpc is imported. Without the listener of its new event engine, the aio server saves a thread
    # hop per message: 25 to 30 % of its CPU (docs/decisions, 0005). Check it at each grpcio upgrade.
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
    # C-core writes lines of its own, in its own form, to standard error, and blocks on a pipe that nobody reads.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from liveavatar_gateway.cli import main as run  # noqa: PLC0415 - after the variable, that is the point

    run()


if __name__ == "__main__":
    main()
