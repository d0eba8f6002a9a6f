"""Register and its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Callable, Literal

from .frames import Frame, RegistrationRefused, RelayError, encode
from .link import Link
from .storage import Identity

Accept = Literal["anyone", "correspondents"]
RESUME_REFUSED = 401


@dataclass(frozen=True)
class Registration:
    """What the relay answered."""

    identity: Identity
    resumed: bool
    limits: Mapping[str, Any]

    def limit(self, name: str, default: float) -> float:
        """A figure of the limits."""
        value = self.limits.get(name)
        return value if isinstance(value, (int, float)) else default


async def register(
    link: Link,
    identity: Identity | None,
    access_token: str | None,
    accept: Accept,
    on_identity_lost: Callable[[], Awaitable[None]],
) -> Registration:
    """Register, with the identity if it is still good; raises RegistrationRefused and SocketClosed."""
    await link.send(_register(identity, access_token, accept))
    while True:
        frame = await link.receive()
        if frame.type == "RegisterResponse":
            link.registered = True
            return _registration(frame)
        if frame.type != "Error":
            continue
        error = RelayError.of(frame)
        if error.code != RESUME_REFUSED or identity is None:
            raise RegistrationRefused(error)
        await on_identity_lost()
        identity = None
        await link.send(_register(None, access_token, accept))


def _register(identity: Identity | None, access_token: str | None, accept: Accept) -> str:
    payload: dict[str, object] = {"resumable": True, "receipts": True, "accept": accept}
    if identity is not None:
        payload["resume_token"] = identity.resume_token
    elif access_token is not None:
        payload["access_token"] = access_token
    return encode("Register", payload)


def _registration(frame: Frame) -> Registration:
    device_id, token, limits = frame.id("device_id"), frame.text("resume_token"), frame.payload.get("limits")
    if device_id is None or token is None:
        error = RelayError(400, "the relay gave no identity that can be resumed", None, None, None, None, None)
        raise RegistrationRefused(error)
    resumed = frame.payload.get("resumed") is True
    return Registration(Identity(device_id, token), resumed, limits if isinstance(limits, dict) else {})
