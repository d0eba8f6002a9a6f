"""What an application chooses for a client."""

from __future__ import annotations

from dataclasses import dataclass, field

from .environment import Environment
from .registration import Accept
from .settings import Backoff, Watchdog
from .storage import Storage


@dataclass(frozen=True)
class Options:
    """The arguments of :func:`connect`."""

    url: str
    storage: Storage
    access_token: str | None = field(default=None, repr=False)
    accept: Accept = "anyone"
    backoff: Backoff = field(default_factory=Backoff)
    watchdog: Watchdog = field(default_factory=Watchdog)
    concurrency: int = 8
    environment: Environment = field(default_factory=Environment)

    def __post_init__(self) -> None:
        if not self.url.startswith(("ws://", "wss://")):
            raise ValueError(f"{self.url!r} is not the address of a relay: ws://HOST:PORT/ws or wss://HOST/ws")
        if self.accept not in ("anyone", "correspondents"):
            raise ValueError("accept is anyone or correspondents")
        if self.concurrency < 1:
            raise ValueError("concurrency is at least 1")
