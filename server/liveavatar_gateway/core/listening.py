"""The attentive pose: asked for by the caller, taken when the avatar has finished talking."""

from liveavatar_gateway.core.states import Pose


class Listening:
    """Wish of the caller for the listening pose, and the request for it that LiveAvatar was sent.

    Some builds never tell it.
    """

    def __init__(self) -> None:
        self.asked = False
        """True when LiveAvatar was asked for the pose, and not to leave it since."""
        self._wanted = False

    def want(self) -> None:
        """Take it now, or when the avatar has finished talking."""
        self._wanted = True

    def stop(self, pose: Pose) -> bool:
        """Want it no more; whether LiveAvatar is to be told."""
        self._wanted = False
        if not self.asked and pose is not Pose.LISTENING:
            return False
        self.asked = False
        return True

    def lose(self, pose: Pose) -> None:
        """Ask again if the request may be lost with the socket."""
        if self.asked and pose is not Pose.LISTENING:
            self.begin_anew()

    def begin_anew(self) -> None:
        """Ask again what was asked: LiveAvatar, or the avatar that goes on, does not know."""
        self._wanted = self._wanted or self.asked
        self.asked = False

    def is_due(self, pose: Pose) -> bool:
        """Return True when the pose is to be requested now; only for an avatar without queued speech."""
        if not self._wanted or pose is Pose.TALKING:
            return False
        self._wanted = False
        self.asked = True
        return pose is not Pose.LISTENING
