"""The avatar as a participant of a LiveKit room: its audio, its face, joining and leaving."""
