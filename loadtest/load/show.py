"""Measurements in Locust's own tables."""

from typing import Final, NoReturn

import gevent
from locust.env import Environment

from load.recorder import Shown
from load.worker import Worker

_SHOW_S: Final = 0.5


class Table:
    """Locust's statistics of one process, fed from what its part measures."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def show_all(self, part: Worker) -> NoReturn:
        """Show what is new, twice a second, until the greenlet is killed."""
        while True:
            gevent.sleep(_SHOW_S)
            self.show(part)

    def show(self, part: Worker) -> None:
        """Show what is new."""
        for row in part.for_locust():
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
            # Past `request`, which would add it to Locust's total: a stream's life says nothing of its speed.
            self._environment.stats.get(row.name, row.system).log(round(row.took_ms), 0)
