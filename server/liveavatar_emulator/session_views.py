"""JSON of one recorded session for the control API: in short, and in full."""

from typing import Any

from liveavatar_emulator.session_store import StartedSession


def summary(started: StartedSession, now_s: float) -> dict[str, Any]:
    """Return a session in short."""
    session, record = started.driver.session, started.record
    recording = session.recording
    return {
        "id": record.id,
        "account": record.account,
        "phase": session.phase.value,
        "pose": session.pose.value,
        "socket_open": started.driver.socket_open,
        "started_mono_s": record.started_s,
        "duration_s": round(record.duration_s(now_s), 6),
        "end_reason": record.end_reason,
        "utterances": len(recording.utterances),
        "received_bytes": recording.received_bytes,
        "underruns": recording.underruns,
        "commands_before_ready": recording.commands_before_ready,
    }


def full(started: StartedSession, now_s: float) -> dict[str, Any]:
    """Return a session's whole recording without audio."""
    session, record, request = started.driver.session, started.record, started.minted.request
    recording = session.recording

    def at(moment_s: float | None) -> float | None:
        return None if moment_s is None else recording.since_start_s(moment_s)

    return {
        **record.row(now_s),
        "avatar_id": record.avatar_id,
        "account": record.account,
        "quality": request.quality,
        "encoding": request.encoding,
        "max_session_duration": request.max_session_duration,
        "livekit_room": request.livekit_room.room if request.livekit_room else None,
        "agora_room": request.agora_room.row() if request.agora_room else None,
        "connector": request.connector.field if request.connector else None,
        "connector_config": request.connector.config if request.connector else None,
        "events_erased": record.events_erased,
        "media": started.avatar.row() if started.avatar else None,
        "profile": session.events.profile,
        "phase": session.phase.value,
        "pose": session.pose.value,
        "socket_open": started.driver.socket_open,
        "started_mono_s": record.started_s,
        "ready_at_s": at(session.ready_s),
        "ended_at_s": at(record.ended_s),
        "end_reason": record.end_reason,
        "close_code": recording.sockets[-1].close_code if recording.sockets else None,
        "sockets": [
            {
                "opened_at_s": socket.opened_at_s,
                "closed_at_s": socket.closed_at_s,
                "close_code": socket.close_code,
                "close_reason": socket.close_reason,
                "closed_by": socket.closed_by,
            }
            for socket in recording.sockets
        ],
        "received_bytes": recording.received_bytes,
        "kept_bytes": recording.kept_bytes,
        "sha256": recording.sha256,
        "packet_count": recording.packet_count,
        "packets": list(recording.packet_rows()),
        "utterances": [
            recording.utterance_row(utterance, session.playback.playhead_bytes(utterance.playback, now_s))
            for utterance in recording.utterances
        ],
        "interrupts": [
            {
                "event_id": cut.event_id,
                "received_at_s": cut.received_at_s,
                "effective_at_s": cut.effective_at_s,
                "utterance": cut.utterance,
                "played_bytes": cut.played_bytes,
                "dropped_utterances": cut.dropped_utterances,
            }
            for cut in recording.interrupts
        ],
        "underruns": {"count": recording.underruns, "dry_s": round(recording.dry_s, 6)},
        "audio_after_interrupt": {
            "packets": recording.packets_after_interrupt,
            "bytes": recording.bytes_after_interrupt,
        },
        "commands_before_ready": recording.commands_before_ready,
        "commands_after_end": recording.commands_after_end,
        "unknown_messages": recording.unknown_messages,
        "invalid_messages": recording.invalid_messages,
        "oversize_packets": recording.oversize_packets,
        "odd_size_packets": recording.odd_size_packets,
        "refused_packets": recording.refused_packets,
        "keepalives": [{"at_s": at_s, "via": via} for at_s, via in recording.keepalives],
        "command_count": recording.command_count,
        "commands": [
            {"at_s": at_s, "type": kind, "event_id": event_id} for at_s, kind, event_id in recording.commands
        ],
    }
