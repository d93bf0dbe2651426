"""Proof of the pool: limits, fair waiting, warm sessions, accounts that fail, and the simulator of it all."""

from typing import Final

from acceptance.pool.arrivals import ARRIVALS
from acceptance.pool.churn import CHURN
from acceptance.pool.faults import FAULTS
from acceptance.pool.hand_over import HAND_OVER
from acceptance.pool.keep_alive import KEEP_ALIVE
from acceptance.pool.late_permits import LATE_PERMITS
from acceptance.pool.opening import OPENING
from acceptance.pool.properties import PROPERTIES
from acceptance.pool.simulation import SIMULATION
from acceptance.pool.waiting import WAITING

LINES: Final = (
    OPENING,
    CHURN,
    HAND_OVER,
    WAITING,
    LATE_PERMITS,
    *FAULTS,
    KEEP_ALIVE,
    PROPERTIES,
    SIMULATION,
    ARRIVALS,
)
"""Lines in the order in which they run. The short profile takes a minute, so that it has only the first ones."""
