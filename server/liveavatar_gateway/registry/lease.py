"""Rule for when a process counts as dead, without I/O and without a clock."""


def is_dead(lease_left_s: float | None, *, seen_alive: bool | None, grace_s: float) -> bool:
    """Decide whether a process is gone, so that its sessions may be claimed.

    Args:
        lease_left_s: Time until its lease is over, negative once that has passed; None without a lease, because
            the process left in order or its machine was restarted.
        seen_alive: Answer of the operating system; None when it has no answer.
        grace_s: Time beyond its lease for which a process is spared when only its lease is known.

    A process that is seen alive keeps its sessions however late its lease is: it may merely be slow, and two
    owners of one socket are worse than none for a while.
    """
    if lease_left_s is None:
        return True
    if seen_alive is not None:
        return not seen_alive
    return lease_left_s < -grace_s
