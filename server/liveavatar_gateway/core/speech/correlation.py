"""Correlation of LiveAvatar's events with utterances.

The id that the gateway sent counts first (`source_event_id`, or the `event_id` that older builds echo), then the
task that an earlier event named together with such an id. An event without either is for the caller to place by
order.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from liveavatar_gateway.core.messages import Refs
from liveavatar_gateway.core.speech.utterance import Utterance


class Correlator:
    """Memory of the upstream ids of ended utterances and of the tasks of all, the latest `limit` of each."""

    def __init__(self, limit: int) -> None:
        self._lifetime = limit
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._tasks: OrderedDict[str, str] = OrderedDict()

    def find(self, refs: Refs, active: Sequence[Utterance]) -> Utterance | None:
        """Return the active utterance that an event names, if any."""
        named = self.upstream_id_of(refs, active)
        utterance = next((one for one in active if one.upstream_id == named), None)
        if utterance is not None and refs.task_id:
            self._tasks[refs.task_id] = named
            forget_oldest(self._tasks, self._lifetime)
        return utterance

    def names_ended(self, refs: Refs, active: Sequence[Utterance]) -> bool:
        """Return True when an event is about an ended utterance, so that the event is ignored."""
        return self.upstream_id_of(refs, active) in self._ended

    def remember_ended(self, upstream_id: str) -> None:
        """Record that the utterance with an upstream id has ended."""
        self._ended[upstream_id] = None
        forget_oldest(self._ended, self._lifetime)

    def upstream_id_of(self, refs: Refs, active: Sequence[Utterance]) -> str:
        """Return the upstream id that an event is about: the best known one of its ids, else that of its task."""
        for upstream_id in refs.ids:
            if upstream_id in self._ended or any(one.upstream_id == upstream_id for one in active):
                return upstream_id
        return self._tasks.get(refs.task_id, "")


def forget_oldest(kept: OrderedDict[str, Any], limit: int) -> None:
    """Drop the oldest entries above `limit`."""
    while len(kept) > limit:
        kept.popitem(last=False)
