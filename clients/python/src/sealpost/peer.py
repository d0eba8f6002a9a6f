"""Another device, and what two devices do together."""

from __future__ import annotations

from typing import Callable

from .authentication import Answer, Authentications, Sign, Verify
from .rotation import KeyId, KeyRotations


class Peer:
    """Another device. Made by :meth:`Client.peer`."""

    def __init__(
        self, id: str, authentications: Authentications, rotations: KeyRotations, check_open: Callable[[], None]
    ) -> None:
        self.id = id
        self._authentications = authentications
        self._rotations = rotations
        self._check_open = check_open

    async def authenticate(self, *, public_key: str, sign: Sign, verify: Verify) -> None:
        """Authenticate each other; returns when both devices trust each other.

        ``sign(challenge)`` gives the response to a challenge, ``verify(challenge, response)`` says whether a response
        is good; both may be async. Raises Refused where the other device is not trusted or does not trust this one, and
        GaveUp after 60 s.
        """
        self._check_open()
        await self._authentications.authenticate(self.id, public_key, Answer(sign, verify))

    async def rotate_key(self, package: str, key_id: KeyId | None = None) -> None:
        """Send a new key; returns when the other device has taken it.

        Without ``key_id``, a random UUID is used. The key is kept in memory only: a process that ends before the
        answer must send it again. Raises Refused or Expired.
        """
        self._check_open()
        await self._rotations.rotate(self.id, package, key_id)
