"""Parts of one session, wired together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from liveavatar_gateway.core.events import UtteranceEnded
from liveavatar_gateway.core.outputs import ContinueAnswer, PauseAnswer
from liveavatar_gateway.core.session import Session
from liveavatar_gateway.sessions.attachments import Attachments
from liveavatar_gateway.sessions.avatars import Avatars
from liveavatar_gateway.sessions.billed_journal import BilledJournal
from liveavatar_gateway.sessions.billing import Payer
from liveavatar_gateway.sessions.interrupt_waiters import InterruptWaiters
from liveavatar_gateway.sessions.journal import JournaledSession, SessionJournal
from liveavatar_gateway.sessions.publisher import EventPublisher
from liveavatar_gateway.sessions.restore import RestoredSession
from liveavatar_gateway.sessions.room_data import RoomData
from liveavatar_gateway.sessions.room_watch import RoomWatch
from liveavatar_gateway.sessions.services import SessionServices, new_id, utc_now
from liveavatar_gateway.sessions.spec import SessionSpec
from liveavatar_gateway.sessions.user_audio import UserAudio
from liveavatar_gateway.sessions.utterances import SessionUtterances
from liveavatar_gateway.sessions.wakeup import Wakeup
from liveavatar_gateway.upstream.permits import PermitWish


class PartsOwner(JournaledSession, Protocol):
    """A session as its parts see it."""

    @property
    def tenant(self) -> str:
        """Tenant of the session; empty for anonymous callers."""

    def abandon(self) -> None:
        """End the session: its grace without an attachment is over."""

    def note_activity(self) -> None:
        """Take note of a new stream of a caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionParts:
    """Parts of one session."""

    core: Session
    """State machine."""
    wake: Wakeup
    """Wakes the driver after an input to the state machine."""
    journal: SessionJournal
    attachments: Attachments
    interrupts: InterruptWaiters[Sequence[UtteranceEnded]]
    pauses: InterruptWaiters[PauseAnswer]
    continuations: InterruptWaiters[ContinueAnswer]
    utterances: SessionUtterances
    billed: BilledJournal
    avatars: Avatars
    publisher: EventPublisher
    user_audio: UserAudio
    room_data: RoomData
    room_watch: RoomWatch

    @classmethod
    def of(
        cls, owner: PartsOwner, spec: SessionSpec, services: SessionServices, restored: RestoredSession | None
    ) -> "SessionParts":
        """Return the parts of a new session, or of one that another process left."""
        if restored is None:
            core = Session(
                new_id(),
                services.config,
                new_id=new_id,
                utc_now=utc_now,
                auto_rotate=spec.auto_rotate,
                abandonment=spec.abandonment,
                watches_room=spec.room_events is not None,
                has_socket=spec.connector is None,
            )
        else:
            core = restored.core
        wake, meter = Wakeup(), services.metrics.session_meter()
        interrupts: InterruptWaiters[Sequence[UtteranceEnded]] = InterruptWaiters()
        pauses: InterruptWaiters[PauseAnswer] = InterruptWaiters()
        continuations: InterruptWaiters[ContinueAnswer] = InterruptWaiters()
        journal = services.journals.open(owner, None if restored is None else restored.fence)
        grace_s = spec.detach_grace_s
        attachments = Attachments(
            core.id, grace_s=grace_s, abandon=owner.abandon, changed=journal.change, on_stream=owner.note_activity
        )
        payer = Payer(
            session_id=core.id,
            tenant=owner.tenant,
            label=spec.labels.get(services.usage_label, ""),
            free=spec.avatar.sandbox,
        )
        billed = BilledJournal(journal, services.billing, payer)
        avatars = Avatars(
            spec,
            core,
            services.pool,
            journal,
            restored,
            billed=billed,
            take_warm=lambda: services.warm.take(spec, tenant=owner.tenant),
            wish=PermitWish(tenant=owner.tenant, session_id=core.id),
        )
        publisher = EventPublisher(
            core,
            journal=journal,
            meter=meter,
            attachments=attachments,
            interrupts=interrupts,
            pauses=pauses,
            continuations=continuations,
            listener=services.listener,
        )
        user_audio = UserAudio(core.id, avatars, attachments, services.metrics)
        return cls(
            core=core,
            wake=wake,
            journal=journal,
            attachments=attachments,
            interrupts=interrupts,
            pauses=pauses,
            continuations=continuations,
            utterances=SessionUtterances(
                core, journal=journal, metrics=services.metrics, meter=meter, wake=wake, grace_s=grace_s
            ),
            billed=billed,
            avatars=avatars,
            publisher=publisher,
            user_audio=user_audio,
            room_data=RoomData(core.id, user_audio, services.metrics),
            room_watch=RoomWatch(
                core,
                spec,
                room=user_audio,
                avatars=avatars,
                metrics=services.metrics,
                wake=wake,
                is_followed=lambda: attachments.attached,
                report=publisher.report,
            ),
        )
