"""The frames of the protocol as text, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import SealpostError

UUID_PATTERN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", re.IGNORECASE)


class WrittenFloat(float):
    """A number that remembers how it was written, because the relay compares key ids as written."""

    text: str

    def __new__(cls, text: str) -> WrittenFloat:
        """Read ``text``, and keep it."""
        number = super().__new__(cls, text)
        number.text = text
        return number


@dataclass(frozen=True)
class Frame:
    """A frame of the relay."""

    type: str
    payload: Mapping[str, Any]

    def text(self, field: str) -> str | None:
        """A field of the payload, if it is a string."""
        value = self.payload.get(field)
        return value if isinstance(value, str) else None

    def id(self, field: str) -> str | None:
        """An id of the payload, in small letters: ids are compared without regard to case."""
        value = self.text(field)
        return value.lower() if value is not None else None


@dataclass(frozen=True)
class RelayError:
    """The payload of an Error."""

    code: int
    message: str
    message_id: str | None
    recipient_id: str | None
    #: As written, see :func:`key_id_text`.
    key_id: str | None
    #: Seconds.
    retry_after: float | None
    limit: Any

    @classmethod
    def of(cls, frame: Frame) -> RelayError:
        """Read the payload; a field that is missing or strange counts as absent."""
        code = frame.payload.get("code")
        key_id = frame.payload.get("key_id")
        retry_after_ms = frame.payload.get("retry_after_ms")
        return cls(
            code=code if isinstance(code, int) else 0,
            message=frame.text("message") or "",
            message_id=frame.id("message_id"),
            recipient_id=frame.id("recipient_id"),
            key_id=None if key_id is None else key_id_text(key_id),
            retry_after=retry_after_ms / 1000 if isinstance(retry_after_ms, (int, float)) else None,
            limit=frame.payload.get("limit"),
        )


class RegistrationRefused(SealpostError):
    """The answer to Register was an Error."""

    def __init__(self, error: RelayError) -> None:
        super().__init__(error.message)
        self.error = error


def encode(kind: str, payload: Mapping[str, Any] | None = None) -> str:
    """A frame as text."""
    frame: dict[str, Any] = {"type": kind}
    if payload is not None:
        frame["payload"] = payload
    return json.dumps(frame, separators=(",", ":"), allow_nan=False)


def decode(text: str) -> Frame | None:
    """The frame that the relay sent; None for what is no frame."""
    try:
        frame = json.loads(text, parse_float=WrittenFloat)
    except (ValueError, RecursionError):
        return None
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        return None
    payload = frame.get("payload")
    return Frame(frame["type"], payload if isinstance(payload, dict) else {})


def key_id_text(key_id: Any) -> str:
    """A key id as JSON text: a number keeps its spelling, and the string "7" is another id than the number 7."""
    return key_id.text if isinstance(key_id, WrittenFloat) else json.dumps(key_id)


def key_rotation_ack(device_id: str, to: str, key_id: str, success: bool) -> str:
    """A KeyRotationAck for a key id as :func:`key_id_text` gives it."""
    head = json.dumps({"sender_id": device_id, "recipient_id": to, "success": success})
    return f'{{"type":"KeyRotationAck","payload":{head[:-1]}, "key_id": {key_id}}}}}'


def device_id(value: str) -> str:
    """The id of a device in small letters; ValueError where it is none."""
    if not isinstance(value, str) or not UUID_PATTERN.match(value) or not value.strip("0-"):
        raise ValueError(f"{value!r} is not the id of a device: a UUID such as d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d")
    return value.lower()


PING = encode("Ping")
PONG = encode("Pong")
