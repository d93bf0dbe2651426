"""Proof of both directions of voice: users are heard, and the avatar speaks, pauses and goes on.

One module has one line, or a few of one kind: barge-in and connector sessions get theirs beside these.
"""

from typing import Final

from acceptance.voice.browser import BROWSER
from acceptance.voice.many_rooms import MANY_ROOMS
from acceptance.voice.own_rooms import OWN_ROOMS
from acceptance.voice.pauses import PAUSES
from acceptance.voice.quiet_sessions import QUIET_SESSIONS
from acceptance.voice.round_trip import ROUND_TRIP

LINES: Final = (OWN_ROOMS, ROUND_TRIP, BROWSER, PAUSES, QUIET_SESSIONS, MANY_ROOMS)
"""Lines in the order in which they run."""
