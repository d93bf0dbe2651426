"""Pure core of the pool: permits, waiters, fair order and limits of accounts. No I/O, no clock."""
