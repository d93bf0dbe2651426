"""Locust users and load shape: `locust -f loadtest/locustfile.py --host 127.0.0.1:50051 -u 20 -r 2 -t 1m`.

By hand this is plain Locust: `--host`, `-u`, `-r`, `-t`, class names and the web page do what they always do, and
each user holds one session after the other. With `LOAD_SCENARIO` set, users serve that scenario's schedule of
arrivals instead, as under `python -m load run`. See docs/load-testing.md.
"""

import os
import sys
from pathlib import Path
from typing import Any

if os.environ.get("LOCUST_SKIP_MONKEY_PATCH") != "1":
    # gRPC and asyncio hang under gevent's patches, which `import locust` has applied: start again without them.
    unpatched = {**os.environ, "LOCUST_SKIP_MONKEY_PATCH": "1", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], unpatched)
# Set before gRPC is imported: its newer client costs about a tenth more CPU per message.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
sys.path[:0] = [str(Path(__file__).resolve().parent)]

import gevent.monkey  # noqa: E402
from locust import LoadTestShape, User, events, task  # noqa: E402

from load import behaviours  # noqa: E402
from load.closed_loop import ClosedLoop  # noqa: E402
from load.conductor import Conductor  # noqa: E402
from load.run_config import InvalidRunConfig, RunConfig  # noqa: E402
from load.timeline import TimelineError  # noqa: E402

# Locust waits for its workers with `time.sleep` and `os.waitpid`. Without the first patch workers could not
# register meanwhile; without the second it would wait for processes that gevent has reaped already.
gevent.monkey.patch_time()
gevent.monkey.patch_os()

try:
    config = RunConfig.from_environment(os.environ)
    RUN = Conductor(config) if os.environ.get("LOAD_SCENARIO") else ClosedLoop(config, os.environ)
except (InvalidRunConfig, TimelineError) as error:
    sys.exit(str(error))
RUN.install(events)


class SessionUser(User):
    """Base of all users. A task serves the next arrival of its class: one session, from open to end."""

    abstract = True
    host = RUN.host

    def __init_subclass__(cls) -> None:
        """Take the class's weight from the run; a class with weight 0 is no part of the run."""
        cls.weight = RUN.weights.get(cls.__name__, 0.0)
        cls.abstract = cls.weight == 0

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._number = RUN.next_user()

    def hold_session(self, behaviour: behaviours.Behaviour) -> None:
        """Wait until the next arrival of this class is due, then hold its session; other greenlets go on."""
        RUN.serve_next(type(self).__name__, self._number, behaviour)


class Conversation(SessionUser):
    """User who listens, thinks and speaks for 2 to 12 s, several turns; one utterance in five is interrupted."""

    @task
    def converse(self) -> None:
        """Hold one conversation with the gateway."""
        self.hold_session(behaviours.conversation)


class Direct(SessionUser):
    """The same conversation over LiveAvatar's own REST and socket: the baseline of the same run."""

    @task
    def converse(self) -> None:
        """Hold one conversation without the gateway."""
        self.hold_session(behaviours.conversation)


class Broadcast(SessionUser):
    """User with one long monologue."""

    @task
    def broadcast(self) -> None:
        """Speak one long utterance."""
        self.hold_session(behaviours.broadcast)


class Churn(SessionUser):
    """User who opens a session, says one word and ends it."""

    @task
    def say_one_word(self) -> None:
        """Speak one short utterance."""
        self.hold_session(behaviours.churn)


class BargeIn(SessionUser):
    """User who interrupts nearly every utterance, in each way that the contract has."""

    @task
    def speak_and_interrupt(self) -> None:
        """Speak several utterances and interrupt them."""
        self.hold_session(behaviours.barge_in)


class Firehose(SessionUser):
    """User who sends speech as fast as the credit allows."""

    @task
    def flood(self) -> None:
        """Send a minute of speech at once, then interrupt it."""
        self.hold_session(behaviours.firehose)


class Talker(SessionUser):
    """User who speaks without a pause, over a connection that costs the generator little."""

    @task
    def talk(self) -> None:
        """Speak several utterances back to back."""
        self.hold_session(behaviours.talker)


class Quiet(SessionUser):
    """User of a tenant that stays far below its quotas."""

    @task
    def converse(self) -> None:
        """Speak several short utterances."""
        self.hold_session(behaviours.quiet)


class ArrivalShape(LoadTestShape):
    """Number of users that the scenario's arrivals need; plain Locust has no shape.

    The schedule of arrivals is what ramps (load/curves.py). Users only serve it, so their number stays above its
    curve and never falls during a run: a user that is taken away would take its session along.
    """

    abstract = not RUN.scheduled

    def reset_time(self) -> None:
        """Begin a run."""
        super().reset_time()  # type: ignore[no-untyped-call]
        RUN.begin_again()

    def tick(self) -> tuple[int, float] | None:
        """Return the number of users and how many may start per second; None ends the run."""
        users = RUN.users_at(self.get_run_time(), getattr(self.runner, "worker_count", 1))  # type: ignore[no-untyped-call]
        return None if users is None else (users, 100.0)
