"""Turns of a session's users: their audio, cut where they start and stop, while the avatar gives way to them."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Protocol, Self

from liveavatar.gateway.condition import Condition
from liveavatar.gateway.errors import GatewayError, SessionClosed, SessionEnded
from liveavatar.gateway.listener import UserAudio
from liveavatar.gateway.model import Continuation, Interruption, Pause
from liveavatar.gateway.timeouts import timeout
from liveavatar.gateway.turn_detector import (
    TurnAudio,
    TurnDetector,
    TurnEnd,
    TurnEnded,
    TurnOutput,
    TurnRules,
    TurnStarted,
    seconds,
)
from liveavatar.gateway.turn_interrupts import Floor, FloorCommand, InterruptRules, TurnJudge, TurnVerdict
from liveavatar.gateway.user_turn import TURN_FORMAT, AsyncUserTurn, TurnState
from liveavatar.gateway.voice import NewVoiceDetector, VoiceDetector

_log = logging.getLogger(__name__)

KEPT_TURNS = 16
"""Turns that may wait for the program. Beyond it the oldest is dropped, see `AsyncUserTurns.dropped_count`."""
MAX_SPEAKERS = 16
"""Users that are followed at once. Beyond it the user who was quiet for longest is forgotten."""
_COMMAND_S = 10.0
# Longest wait for the answer to a pause, an interrupt, or the end of a pause.
_ABSENCE_S = 1.0
# Time without audio after which a user counts as silent: muted, or gone. Longer than delays of the network.
_TICK_S = 0.1


class UserAudioSource(Protocol):
    """Listener to users, such as `AsyncListener`."""

    @property
    def connected(self) -> bool:
        """True while the gateway is in the room."""

    async def next(self) -> UserAudio | None:
        """Wait for the next audio; None at the end."""

    def close(self) -> None:
        """Stop listening."""


class Avatar(Protocol):
    """Commands of a session to its avatar."""

    async def pause(self, *, limit: timedelta | float) -> Pause:
        """Silence the avatar for a while."""

    async def continue_speech(self) -> Continuation:
        """End a pause."""

    async def interrupt(self) -> Interruption:
        """End the avatar's speech."""


class _Speaker:
    """User who is followed: the audio that does not fill a window yet, the detector, and the open turn."""

    def __init__(self, participant: str, voice: VoiceDetector, rules: TurnRules) -> None:
        self.participant = participant
        self.turn: TurnState | None = None
        self.heard_mono_s = 0.0
        self.ends_at = datetime.now(UTC)
        """Capture time of the end of the audio that the detector has taken."""
        self._voice = voice
        self._window_bytes = voice.window_samples * TURN_FORMAT.frame_bytes
        self._rest = bytearray()
        window_s = voice.window_samples / TURN_FORMAT.sample_rate_hz
        self.detector = TurnDetector(rules, window_bytes=self._window_bytes, window_s=window_s)

    def feed(self, chunk: UserAudio) -> list[TurnOutput]:
        """Take audio and return its effects."""
        outputs = self.lapse(chunk.dropped.total_seconds()) if chunk.dropped else []
        self._rest += chunk.audio
        chunk_ends_at = chunk.captured_at + TURN_FORMAT.duration(len(chunk.audio))
        while len(self._rest) >= self._window_bytes:
            window = bytes(self._rest[: self._window_bytes])
            del self._rest[: self._window_bytes]
            self.ends_at = chunk_ends_at - TURN_FORMAT.duration(len(self._rest))
            outputs += self.detector.advance(window, self._voice.probability(window))
        return outputs

    def lapse(self, lapse_s: float) -> list[TurnOutput]:
        """Take missing audio as silence."""
        self._rest.clear()
        self._voice.reset()
        return self.detector.lapse(lapse_s)


class AsyncUserTurns:
    """Turns of a session's users: `async for turn in session.user_turns()`, until the session ends.

    A turn is delivered once it counts, while the user still speaks: after `TurnRules.min_voice`, or, if the avatar
    was talking, once its speech was interrupted by `InterruptRules`. Shorter turns are not delivered. With
    `min_words`, a turn that cuts in is delivered at its start, so that the program can count its words.

    Users are heard, and the avatar gives way, also while the program does not ask for the next turn: from the
    first `next`, or the start of `async with`, until `close`, the end of the block or of the session.
    """

    def __init__(
        self,
        listener: UserAudioSource,
        avatar: Avatar,
        new_voice: NewVoiceDetector,
        spawn: Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[Any]"],
        *,
        is_talking: Callable[[], bool],
        rules: TurnRules,
        interrupts: InterruptRules | None,
    ) -> None:
        """Prepare; `user_turns` of sessions does this.

        Args:
            listener: Listener to the users, in `TURN_FORMAT`.
            avatar: Session that is paused and interrupted.
            new_voice: Makes the detector of a user.
            spawn: Starts the task that listens.
            is_talking: Returns whether the avatar has speech to say.
            rules: Rules for start and end of turns.
            interrupts: Rules for turns while the avatar talks; None never pauses and never interrupts.
        """
        self._listener = listener
        self._avatar = avatar
        self._new_voice = new_voice
        self._spawn = spawn
        self._is_talking = is_talking
        self._rules = rules
        self._interrupts = interrupts
        self._absence_s = max(_ABSENCE_S, seconds(rules.end_silence))
        self._condition = Condition()
        self._speakers: dict[str, _Speaker] = {}
        self._floor = Floor()
        self._commands: deque[tuple[FloorCommand, TurnState]] = deque()
        self._delivered: deque[TurnState] = deque()
        self._dropped_count = 0
        self._word_timers: dict[TurnState, asyncio.TimerHandle] = {}
        self._task: asyncio.Task[Any] | None = None
        self._hearing: asyncio.Task[None] | None = None
        self._is_closed = False
        """True once nobody is heard any longer, or the program wants no more."""
        self._is_concluded = False
        """True once all turns have ended, so that no further command follows."""
        self._is_over = False
        """True once all commands were carried out, so that no further turn is delivered."""
        self._failure: Exception | None = None

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "not open" if self._task is None else "listening"
        return f"<{type(self).__name__} {state}>"

    @property
    def connected(self) -> bool:
        """True while the gateway is in the room; otherwise the stream is being opened, or is over."""
        return self._listener.connected

    @property
    def closed(self) -> bool:
        """True once nobody is heard any longer; turns that were heard before may still follow."""
        return self._is_closed

    @property
    def dropped_count(self) -> int:
        """Number of turns that were dropped because 16 newer turns waited for the program."""
        return self._dropped_count

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if self._task is not None:
            await asyncio.wait([self._task])

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AsyncUserTurn:
        turn = await self.next()
        if turn is None:
            raise StopAsyncIteration
        return turn

    async def next(self) -> AsyncUserTurn | None:
        """Wait for the next turn; None after the end of the session, or after `close`. It may be cancelled.

        Raises:
            ConnectionLost: no gateway was reachable for `resume_timeout`.
            RoomUnreachable: the gateway cannot join the room.
            GatewayError: the gateway refused.
            Exception: the detector of voice raised this.
        """
        self._begin()
        await self._condition.until(lambda: self._delivered or self._is_over)
        if self._delivered:
            return AsyncUserTurn(self._delivered.popleft())
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return None

    def close(self) -> None:
        """Stop listening: open turns end, and an avatar that was paused continues. Idempotent."""
        self._is_closed = True
        self._is_over = self._is_over or self._task is None
        if self._hearing is not None:
            self._hearing.cancel()
        self._listener.close()
        self._condition.notify()

    def _begin(self) -> None:
        if self._task is None and not self._is_closed:
            self._task = self._spawn(self._run(), "session/turns")

    async def _run(self) -> None:
        """Listen until the end of the session, or until `close`."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._carry_out_all(), name="session/turns/commands")
                tasks.create_task(self._notice_absence(), name="session/turns/absence")
                self._hearing = tasks.create_task(self._hear(), name="session/turns/hear")
                # Not in the task, which may be cancelled before its first step.
                self._hearing.add_done_callback(lambda _: self._conclude_all())
        except* Exception as errors:  # noqa: BLE001  a task's root: a bug, which `next` raises
            self._failure = self._failure or errors.exceptions[0]
        finally:
            self._is_over = True
            self.close()

    async def _hear(self) -> None:
        """Hear the users until the end of the session, and keep the error that ends it earlier."""
        loop = asyncio.get_running_loop()
        try:
            while not self._is_closed and (chunk := await self._listener.next()) is not None:
                speaker = self._speakers.get(chunk.participant) or await self._welcome(chunk.participant)
                speaker.heard_mono_s = loop.time()
                self._take(speaker, speaker.feed(chunk))
        except Exception as error:  # noqa: BLE001  `next` raises it, behind the turns before
            self._failure = error

    async def _welcome(self, participant: str) -> _Speaker:
        """Begin to follow a user."""
        # A model is read from the disk.
        voice = await asyncio.to_thread(self._new_voice)
        if len(self._speakers) >= MAX_SPEAKERS:
            quietest = min(self._speakers.values(), key=lambda one: (one.detector.is_open, one.heard_mono_s))
            self._take(quietest, quietest.detector.finish())
            del self._speakers[quietest.participant]
            _log.warning("turns.speaker_forgotten limit=%d", MAX_SPEAKERS)
        speaker = self._speakers[participant] = _Speaker(participant, voice, self._rules)
        return speaker

    async def _notice_absence(self) -> None:
        """End the turns of users whose audio stops without a silence."""
        loop = asyncio.get_running_loop()
        while True:
            await self._condition.until(
                lambda: self._is_closed or any(one.turn is not None for one in self._speakers.values())
            )
            if self._is_closed:
                return
            await asyncio.sleep(_TICK_S)
            for speaker in list(self._speakers.values()):
                if speaker.turn is not None and loop.time() - speaker.heard_mono_s >= self._absence_s:
                    self._take(speaker, speaker.lapse(self._absence_s))

    def _take(self, speaker: _Speaker, outputs: list[TurnOutput]) -> None:
        """Carry out the effects of a user's audio."""
        for output in outputs:
            match output:
                case TurnStarted():
                    self._start(speaker, output)
                case TurnAudio():
                    self._grow(speaker, output.audio)
                case TurnEnded():
                    self._conclude(speaker, output.reason)
        if outputs:
            self._condition.notify()

    def _start(self, speaker: _Speaker, started: TurnStarted) -> None:
        judge = TurnJudge(self._rules, self._interrupts, is_cutting_in=self._is_talking())
        started_at = speaker.ends_at - timedelta(seconds=started.since_voice_s)
        turn = TurnState(speaker.participant, started_at, judge, self._condition, self._count_words)
        speaker.turn = turn
        if judge.cuts_in:
            self._command(self._floor.cut_in(turn), turn)
            if judge.needs_words:
                self._deliver(turn)
        self._grow(speaker, started.audio)

    def _grow(self, speaker: _Speaker, audio: bytes) -> None:
        if speaker.turn is not None:
            speaker.turn.append(audio)
            self._judge(speaker.turn, lambda judge: judge.hear(speaker.detector.voice_s))

    def _conclude(self, speaker: _Speaker, reason: TurnEnd) -> None:
        turn, speaker.turn = speaker.turn, None
        if turn is None:
            return
        turn.finish(reason)
        if turn.judge.needs_words and self._interrupts is not None and not self._is_closed:
            loop = asyncio.get_running_loop()
            delay_s = seconds(self._interrupts.word_timeout)
            self._word_timers[turn] = loop.call_later(delay_s, self._judge, turn, TurnJudge.refuse)
        else:
            self._judge(turn, TurnJudge.refuse)

    def _conclude_all(self) -> None:
        """End all turns, since there will be no more audio."""
        self._is_closed = True
        for speaker in self._speakers.values():
            self._take(speaker, speaker.detector.finish())
        for turn in list(self._word_timers):
            self._judge(turn, TurnJudge.refuse)
        self._is_concluded = True
        self._condition.notify()

    def _count_words(self, turn: TurnState, count: int) -> None:
        self._judge(turn, lambda judge: judge.count_words(count))

    def _judge(self, turn: TurnState, change: Callable[[TurnJudge], None]) -> None:
        """Let the judge of a turn take a change, and carry out the verdict that the change brings."""
        before = turn.judge.verdict
        change(turn.judge)
        if turn.judge.verdict is before:
            return
        timer = self._word_timers.pop(turn, None)
        if timer is not None:
            timer.cancel()
        if turn.judge.verdict is TurnVerdict.REFUSED:
            self._command(self._floor.refuse(turn), turn)
        elif turn.judge.cuts_in:
            self._command(self._floor.accept(), turn)
        else:
            self._deliver(turn)
        self._condition.notify()

    def _command(self, command: FloorCommand | None, turn: TurnState) -> None:
        if command is not None:
            self._commands.append((command, turn))

    def _deliver(self, turn: TurnState) -> None:
        """Give a turn to the program, if it does not have the turn yet."""
        if turn.is_delivered:
            return
        turn.deliver()
        if len(self._delivered) >= KEPT_TURNS:
            self._delivered.popleft()
            self._dropped_count += 1
            _log.warning("turns.dropped limit=%d", KEPT_TURNS)
        self._delivered.append(turn)
        self._condition.notify()

    async def _carry_out_all(self) -> None:
        """Carry out the commands to the avatar, one after the other."""
        while True:
            await self._condition.until(lambda: self._commands or self._is_concluded)
            if not self._commands:
                return
            command, turn = self._commands.popleft()
            try:
                async with timeout(_COMMAND_S):
                    await self._carry_out(command, turn)
            except (SessionEnded, SessionClosed):
                pass
            except (GatewayError, TimeoutError) as error:
                # The gateway ends the pause at its limit, and the turn is worth more than the interrupt before it.
                _log.warning("turns.command_failed command=%s cause=%r", command.name, error)
            if command is FloorCommand.INTERRUPT:
                self._deliver(turn)

    async def _carry_out(self, command: FloorCommand, turn: TurnState) -> None:
        match command:
            case FloorCommand.PAUSE if self._interrupts is not None:
                await self._avatar.pause(limit=self._interrupts.max_pause)
            case FloorCommand.CONTINUE:
                await self._avatar.continue_speech()
            case FloorCommand.INTERRUPT:
                turn.interrupt(await self._avatar.interrupt())
