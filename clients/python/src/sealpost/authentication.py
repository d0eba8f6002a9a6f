"""Mutual authentication of two devices, on both sides. The keys and signatures are the application's."""

from __future__ import annotations

import asyncio
import base64
import inspect
import secrets
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Callable, Optional, TypeVar, Union

from .errors import GaveUp, Refused, SealpostError
from .events import Authenticated, Emitter, HandlerError
from .flow import FlowFrame
from .frames import Frame, RelayError
from .handle import Outcome
from .pump import ItemState, Pump
from .refusals import is_repeated
from .tasks import Tasks

#: Seconds that an authentication may take.
TIMEOUT = 60.0
NOT_VERIFIED, NO_OPEN_EXCHANGE = 403, 404

T = TypeVar("T")
#: Gives the response to a challenge.
Sign = Callable[[str], Union[str, Awaitable[str]]]
#: Says whether the response to a challenge is good.
Verify = Callable[[str, str], Union[bool, Awaitable[bool]]]


@dataclass(frozen=True)
class AuthenticationRequest:
    """Another device asks to authenticate each other. Nothing is proved yet."""

    sender: str
    public_key: str


@dataclass(frozen=True)
class Answer:
    """How to answer an :class:`AuthenticationRequest`."""

    sign: Sign
    verify: Verify


#: Returns how to answer a request, or None to leave it unanswered.
AuthenticateHandler = Callable[[AuthenticationRequest], Awaitable[Optional[Answer]]]


@dataclass
class _Exchange:
    """One side of an exchange."""

    answer: Answer
    #: What the other device has to answer.
    challenge: str
    timer: asyncio.TimerHandle
    #: Whether the own check was good, and whether the other side says so of its own.
    peer_verified: bool = False
    peer_trusts: bool = False

    def is_complete(self) -> bool:
        return self.peer_verified and self.peer_trusts


@dataclass
class _Begun(_Exchange):
    """The side that began."""

    outcome: Outcome[None] = field(default_factory=Outcome)
    #: AuthResponses to the same device, while this is open: the relay refuses one where both began at once.
    crossing_responses: int = 0


class Authentications:
    """The open exchanges, by the other device."""

    def __init__(self, pump: Pump, events: Emitter) -> None:
        self._pump = pump
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks()
        self._handler: AuthenticateHandler | None = None
        self._begun: dict[str, _Begun] = {}
        self._answered: dict[str, _Exchange] = {}
        #: What was sent last, because the relay names only the device when it refuses.
        self._last_sent: dict[str, list[FlowFrame]] = {}
        self._arrived: dict[str, deque[Frame]] = {}

    def set_handler(self, handler: AuthenticateHandler) -> None:
        """Ask ``handler`` how to answer requests."""
        self._handler = handler

    async def authenticate(self, peer: str, public_key: str, answer: Answer) -> None:
        """Begin an exchange; returns when both devices trust each other."""
        self._fail(peer, GaveUp("another authentication with this device began"))
        timer = self._loop.call_later(TIMEOUT, self._fail, peer, GaveUp("no answer within 60 s"))
        begun = _Begun(answer, _challenge(), timer)
        begun.crossing_responses = 1 if peer in self._answered else 0
        self._begun[peer] = begun
        self._begin_step(peer)
        self._send(peer, "AuthRequest", {"public_key": public_key, "challenge": begun.challenge})
        await begun.outcome

    def on_frame(self, frame: Frame) -> None:
        """An Auth message came. Those of one device are worked through in their order."""
        peer = self._sender(frame)
        if peer is None:
            return
        arrived = self._arrived.setdefault(peer, deque())
        arrived.append(frame)
        if len(arrived) == 1:
            self._tasks.spawn(self._work_through(peer, arrived))

    def on_error(self, error: RelayError) -> bool:
        """The relay refused an Auth message; False if it is about something else."""
        peer = error.recipient_id
        if peer is None or (peer not in self._begun and peer not in self._answered):
            return False
        begun = self._begun.get(peer)
        sent = self._last_sent[peer]
        refused = next((frame for frame in sent if frame.written and frame.state is ItemState.IDLE), None)
        if refused is not None and is_repeated(error):
            self._pump.repeat_later(refused, error)
        elif refused is not None and error.code == NOT_VERIFIED and sent[0].state is not ItemState.IDLE:
            # The AuthVerify before this AuthSuccess was refused for now: both leave again.
            self._pump.repeat_later(refused)
        elif error.code == NO_OPEN_EXCHANGE and begun is not None and begun.crossing_responses > 0:
            begun.crossing_responses -= 1
            self._forget_answered(peer)
        else:
            self._forget_answered(peer)
            self._fail(peer, Refused(error.message, error.code))
        return True

    def reject_all(self, error: SealpostError) -> None:
        """Give up all exchanges."""
        for peer in list(self._answered):
            self._forget_answered(peer)
        for peer in list(self._begun):
            self._fail(peer, error)

    async def close(self, error: SealpostError) -> None:
        """Give up all exchanges, and stop handlers."""
        self.reject_all(error)
        await self._tasks.cancel()

    def _sender(self, frame: Frame) -> str | None:
        if frame.type != "AuthSuccess":
            return frame.id("device_id")
        sender = frame.id("sender_id")
        if sender is not None:
            return sender
        # It names its recipient; the sender is known only if one exchange can have come so far.
        open_with = {*self._begun, *self._answered}
        return next(iter(open_with)) if len(open_with) == 1 else None

    async def _work_through(self, peer: str, arrived: deque[Frame]) -> None:
        while arrived:
            try:
                await self._take(peer, arrived[0])
            except Exception as error:
                self._events.emit("handler_error", HandlerError(peer, "", error))
                self._forget_answered(peer)
                self._fail(peer, GaveUp(f"a function of the application raised: {error}"))
            arrived.popleft()
        del self._arrived[peer]

    async def _take(self, peer: str, frame: Frame) -> None:
        challenge, response = frame.text("challenge") or "", frame.text("challenge_response") or ""
        if frame.type == "AuthRequest":
            await self._answer_request(peer, frame.text("public_key") or "", challenge)
        elif frame.type == "AuthResponse":
            await self._check_response(peer, challenge, response)
        elif frame.type == "AuthVerify":
            await self._check_verify(peer, response)
        else:
            self._note_trust(peer, frame.payload.get("trusted") is True)

    async def _answer_request(self, peer: str, public_key: str, challenge: str) -> None:
        begun = self._begun.get(peer)
        answer: Answer | None = None
        if self._handler is not None:
            answer = await self._handler(AuthenticationRequest(peer, public_key))
        elif begun is not None:
            answer = begun.answer  # Both began at once.
        if answer is None:
            return
        response = await _result(answer.sign(challenge))
        self._forget_answered(peer)
        timer = self._loop.call_later(TIMEOUT, self._forget_answered, peer)
        exchange = _Exchange(answer, _challenge(), timer)
        self._answered[peer] = exchange
        begun = self._begun.get(peer)
        if begun is not None:
            begun.crossing_responses += 1
        self._begin_step(peer)
        self._send(peer, "AuthResponse", {"challenge_response": response, "challenge": exchange.challenge})

    async def _check_response(self, peer: str, challenge: str, response: str) -> None:
        begun = self._begun.get(peer)
        if begun is None or begun.peer_verified:
            return
        if not await _result(begun.answer.verify(begun.challenge, response)):
            self._fail(peer, Refused("the response of the other device is wrong"))
            return
        own_response = await _result(begun.answer.sign(challenge))
        if self._begun.get(peer) is not begun:
            return  # It was given up meanwhile.
        begun.peer_verified = True
        # The exchange that this device began goes on, so the other one does not.
        self._forget_answered(peer)
        self._begin_step(peer)
        self._send(peer, "AuthVerify", {"challenge_response": own_response})
        self._send_success(peer, True)

    async def _check_verify(self, peer: str, response: str) -> None:
        exchange = self._answered.get(peer)
        if exchange is None:
            return
        exchange.peer_verified = bool(await _result(exchange.answer.verify(exchange.challenge, response)))
        self._begin_step(peer)
        self._send_success(peer, exchange.peer_verified)
        if not exchange.peer_verified:
            self._forget_answered(peer)
            self._fail(peer, Refused("the response of the other device is wrong"))

    def _note_trust(self, peer: str, trusted: bool) -> None:
        begun, answered = self._begun.get(peer), self._answered.get(peer)
        exchange = begun if begun is not None and begun.peer_verified else answered
        if exchange is None:
            return
        if not trusted:
            self._forget_answered(peer)
            self._fail(peer, Refused("the other device does not trust this one"))
            return
        exchange.peer_trusts = True
        if not exchange.is_complete():
            return
        if exchange is answered:
            self._forget_answered(peer)
            self._events.emit("authenticated", Authenticated(peer))
        if begun is not None:
            self._end_begun(peer)
            begun.outcome.resolve(None)

    def _send_success(self, peer: str, trusted: bool) -> None:
        # Here device_id names the device that is confirmed, not the one that says so.
        self._send(peer, "AuthSuccess", {"device_id": peer, "trusted": trusted}, own_id_field="sender_id")

    def _send(self, peer: str, kind: str, fields: dict[str, object], own_id_field: str = "device_id") -> None:
        frame = FlowFrame(kind, lambda device_id: {**fields, "recipient_id": peer, own_id_field: device_id})
        self._last_sent[peer].append(frame)
        self._pump.offer(frame)

    def _begin_step(self, peer: str) -> None:
        """What is left of an earlier step must not leave any more."""
        for frame in self._last_sent.get(peer, ()):
            self._pump.withdraw(frame)
        self._last_sent[peer] = []

    def _fail(self, peer: str, error: SealpostError) -> None:
        begun = self._end_begun(peer)
        if begun is not None:
            begun.outcome.reject(error)

    def _end_begun(self, peer: str) -> _Begun | None:
        begun = self._begun.pop(peer, None)
        if begun is not None:
            begun.timer.cancel()
        return begun

    def _forget_answered(self, peer: str) -> None:
        exchange = self._answered.pop(peer, None)
        if exchange is not None:
            exchange.timer.cancel()


def _challenge() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode("ascii")


async def _result(value: T | Awaitable[T]) -> T:
    return await value if inspect.isawaitable(value) else value
