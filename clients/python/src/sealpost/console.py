"""What the commands print: lines for people, or JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import Any

from .errors import Expired, Refused, SealpostError
from .events import State
from .inbox import Message


class Console:
    """Messages go to stdout, all else to stderr; with ``as_json``, everything goes to stdout, one object a line."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def message(self, message: Message) -> None:
        """Another device has sent a text."""
        if self._as_json:
            self._json("message", **{"from": message.sender}, id=message.id, text=message.data)
        else:
            print(f"{printable(message.sender)}: {printable(message.data)}", flush=True)

    def registered(self, device_id: str) -> None:
        """The relay knows this device."""
        if self._as_json:
            self._json("registered", device_id=device_id)
        else:
            self._say(f"you are {device_id}")

    def state(self, state: State) -> None:
        """The connection has changed; only what a person can use is told to people."""
        if self._as_json:
            self._json("state", state=state.name, reason=state.reason or None)
        elif state.name in ("offline", "replaced"):
            again = "" if state.next_attempt is None else f"; next attempt in {state.next_attempt:.0f} s"
            self._say(f"{state.name}: {state.reason}{again}")

    def outcome(self, stage: str, message_id: str) -> None:
        """A message has got as far as it was waited for."""
        if self._as_json:
            self._json(stage, id=message_id)

    def failure(self, error: SealpostError, message_id: str | None = None) -> None:
        """Something has failed."""
        if not self._as_json:
            self._say(f"{failure_name(error)}: {error}")
            return
        code = error.code if isinstance(error, (Refused, Expired)) else None
        self._json("failed", id=message_id, error=failure_name(error), code=code, reason=str(error))

    def hint(self, text: str) -> None:
        """Something that only people need."""
        if not self._as_json:
            self._say(text)

    def _json(self, event: str, **fields: Any) -> None:
        print(
            json.dumps({"event": event, **{name: value for name, value in fields.items() if value is not None}}),
            flush=True,
        )

    def _say(self, text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)


def failure_name(error: SealpostError) -> str:
    """The kind of a failure, as both forms name it."""
    return {"Expired": "expired", "Refused": "refused", "StorageError": "storage"}.get(type(error).__name__, "gave up")


def printable(text: str) -> str:
    """Text of others as it may go to a terminal: no control characters, and no line that looks like another message."""
    lines = text.split("\n")
    return "\n    ".join(
        "".join(one if one.isprintable() or one == "\t" else "\ufffd" for one in line) for line in lines
    )
