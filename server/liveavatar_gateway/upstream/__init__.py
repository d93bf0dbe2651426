"""The LiveAvatar side: REST, command socket, the pool that holds them, and what keeps them alive or ends them."""
