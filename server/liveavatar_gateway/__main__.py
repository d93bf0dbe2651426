"""Entry point of `liveavatar-gateway`: sets what gRPC reads at import, then hands over to the command line."""

import os


def main() -> None:
    """Run the command line."""
    # Read once when grpc is imported. Without the listener of its new event engine, the aio server saves a thread
    # hop per message: 25 to 30 % of its CPU (docs/decisions, 0005). Check it at each grpcio upgrade.
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
    from liveavatar_gateway.cli import main as run  # noqa: PLC0415 - after the variable, that is the point

    run()


if __name__ == "__main__":
    main()
