"""LiveAvatar side: REST API, command sockets, permits, and the pool of sessions."""
