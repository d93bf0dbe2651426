"""Measurements in Locust's own tables."""

from typing import Final, NoReturn

import gevent
from locust.env import Environment

from load.recorder import Shown
from load.worker import Worker

_SHOW_S: Final = 0.5


class Table:
    """Locust's statistics of one process, fed from its worker's measurements."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def show_all(self, worker: Worker) -> NoReturn:
        """Show what is new, twice a second, until the greenlet is killed."""
        while True:
            gevent.sleep(_SHOW_S)
            self.show(worker)

    def show(self, worker: Worker) -> None:
        """Show what is new."""
        for row in worker.for_locust():
            self._show_row(row)

    def _show_row(self, row: Shown) -> None:
        if row.latency:
            self._environment.events.request.fire(  # type: ignore[no-untyped-call]
                request_type=row.system,
                name=row.name,
                response_time=row.took_ms,
                response_length=0,
                exception=row.reason,
                context={},
            )
        else:
            # `request` would add it to Locust's total, but a stream's lifetime says nothing of its speed.
            self._environment.stats.get(row.name, row.system).log(round(row.took_ms), 0)
