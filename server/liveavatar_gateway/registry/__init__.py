"""Who owns which session, and what another process needs to go on with it."""
