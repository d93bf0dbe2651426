"""Listening pose: requested by the caller, taken when the avatar has finished talking."""

from liveavatar_gateway.core.states import Pose


class Listening:
    """Request of the caller for the listening pose, and the command that LiveAvatar was sent for it.

    Some builds of LiveAvatar never report this pose.
    """

    def __init__(self) -> None:
        self.asked = False
        """True while LiveAvatar was sent ListenStart and no ListenStop after it."""
        self._wanted = False

    def want(self) -> None:
        """Request the pose for now, or for when the avatar has finished talking."""
        self._wanted = True

    def stop(self, pose: Pose) -> bool:
        """Withdraw the request; return True when LiveAvatar must be sent ListenStop."""
        self._wanted = False
        if not self.asked and pose is not Pose.LISTENING:
            return False
        self.asked = False
        return True

    def lose(self, pose: Pose) -> None:
        """Repeat the command if it may be lost with the socket."""
        if self.asked and pose is not Pose.LISTENING:
            self.begin_anew()

    def begin_anew(self) -> None:
        """Make the command due again, since LiveAvatar or the new avatar does not know of it."""
        self._wanted = self._wanted or self.asked
        self.asked = False

    def is_due(self, pose: Pose) -> bool:
        """Return True when ListenStart is to be sent now; only for an avatar without queued speech."""
        if not self._wanted or pose is Pose.TALKING:
            return False
        self._wanted = False
        self.asked = True
        return pose is not Pose.LISTENING
