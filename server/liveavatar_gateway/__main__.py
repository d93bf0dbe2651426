"""Entry point of `liveavatar-gateway`: sets variables that gRPC reads at import, then runs the command line."""

import os


def _open_standard_streams() -> None:
    """Open closed descriptors among 0 to 2, so that no database file gets the number of standard error."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # Gets the lowest free number, which is this one.
            os.open(os.devnull, os.O_RDWR)


def main() -> None:
    """Run the command line."""
    _open_standard_streams()
    # C-core writes its own log lines to standard error, and blocks on a pipe without a reader.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from liveavatar_gateway.cli import main as run  # noqa: PLC0415 - must follow the variables

    run()


if __name__ == "__main__":
    main()
