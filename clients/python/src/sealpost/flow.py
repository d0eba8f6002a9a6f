"""What the flows of authentication and key rotation have in common."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Callable

from .frames import encode
from .pump import Item

#: Flows leave before messages: a new key comes before what is encrypted under it.
FLOW_ORDER = 0

_positions = itertools.count()

#: Makes a payload for the id of this device.
Payload = Callable[[str], Mapping[str, object]]


class FlowFrame(Item):
    """A frame that costs allowance and that the relay does not ack."""

    def __init__(self, kind: str, payload: Payload) -> None:
        super().__init__((FLOW_ORDER, next(_positions)), awaits_answer=False)
        self.kind = kind
        #: Whether it may have been written to a socket.
        self.written = False
        self._payload = payload

    def frame(self, device_id: str) -> str:
        """The frame, which is written now."""
        self.written = True
        return encode(self.kind, self._payload(device_id))
