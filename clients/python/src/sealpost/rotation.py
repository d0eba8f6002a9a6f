"""Key rotation, on the side that has the new key."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Union

from .errors import Expired, Refused, SealpostError
from .flow import FlowFrame
from .frames import Frame, RelayError, key_id_text
from .handle import Outcome
from .pump import ItemState, Pump
from .refusals import EXPIRED, is_repeated

KeyId = Union[str, int]


@dataclass
class _Rotation:
    frame: FlowFrame
    outcome: Outcome[None]


class KeyRotations:
    """New keys that their recipients have not answered; kept in memory, and repeated on each new connection."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._open: dict[tuple[str, str], _Rotation] = {}

    async def rotate(self, peer: str, package: str, key_id: KeyId | None) -> None:
        """Send a new key; returns when the peer has taken it."""
        chosen: KeyId = str(uuid.uuid4()) if key_id is None else key_id
        if isinstance(chosen, bool) or not isinstance(chosen, (str, int)):
            raise ValueError("a key_id is a string or a whole number")
        if not isinstance(package, str):
            raise ValueError("a key package is a string")
        key = (peer, key_id_text(chosen))
        if key in self._open:
            raise ValueError(f"the rotation of key {chosen!r} for {peer} is under way")

        def payload(device_id: str) -> dict[str, object]:
            return {
                "sender_id": device_id,
                "recipient_id": peer,
                "encrypted_key_package": package,
                "key_id": chosen,
            }

        rotation = _Rotation(FlowFrame("KeyRotationUpdate", payload), Outcome())
        self._open[key] = rotation
        self._pump.offer(rotation.frame)
        await rotation.outcome

    def connected(self) -> None:
        """A connection is registered: say again what has no answer."""
        for rotation in self._open.values():
            if rotation.frame.state is ItemState.IDLE:
                self._pump.offer(rotation.frame)

    def on_ack(self, frame: Frame) -> None:
        """The peer has answered."""
        key = (frame.id("sender_id") or "", key_id_text(frame.payload.get("key_id")))
        rotation = self._end(key)
        if rotation is None:
            return
        if frame.payload.get("success") is True:
            rotation.outcome.resolve(None)
        else:
            rotation.outcome.reject(Refused("the other device did not take the key"))

    def on_error(self, error: RelayError) -> None:
        """The relay refused a key, or gave it up."""
        key = (error.recipient_id or "", error.key_id or "")
        rotation = self._open.get(key)
        if rotation is None:
            return
        if is_repeated(error):
            self._pump.repeat_later(rotation.frame, error)
            return
        self._end(key)
        kind = Expired if error.code == EXPIRED else Refused
        rotation.outcome.reject(kind(error.message, error.code))

    def identity_lost(self, error: SealpostError) -> None:
        """Give up what may have been written under the old identity."""
        for key, rotation in list(self._open.items()):
            if rotation.frame.written:
                self._end(key)
                rotation.outcome.reject(error)

    def close(self, error: SealpostError) -> None:
        """Give up all."""
        for key, rotation in list(self._open.items()):
            self._end(key)
            rotation.outcome.reject(error)

    def _end(self, key: tuple[str, str]) -> _Rotation | None:
        rotation = self._open.pop(key, None)
        if rotation is not None:
            self._pump.withdraw(rotation.frame)
        return rotation
