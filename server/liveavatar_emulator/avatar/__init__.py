"""The avatar as a participant of a LiveKit room: its voice, its face, and the way in and out."""
