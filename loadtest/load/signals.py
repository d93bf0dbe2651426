"""Ctrl-C in a run of several processes: the terminal sends it to all of them, and the master alone acts on it."""

import signal

from locust.env import Environment
from locust.runners import WorkerRunner


def leave_ctrl_c_to_the_master(environment: Environment) -> None:
    """Ignore SIGINT in a worker that `--processes` forked.

    A worker that stops by itself leaves while its master still waits for what it measured. The master asks its
    workers to stop. Workers that were started by hand stop at their own terminal's Ctrl-C.
    """
    options = environment.parsed_options
    if isinstance(environment.runner, WorkerRunner) and options is not None and options.processes:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
