"""A client for the Sealpost relay: messages that are not lost and not handed over twice."""

from .authentication import Answer, AuthenticationRequest
from .client import Client
from .connecting import connect
from .errors import Closed, Expired, GaveUp, Refused, SealpostError, StorageError
from .events import Authenticated, Failed, HandlerError, IdentityLost, Receipt, Registered, State
from .handle import Handle
from .inbox import KeyRotation, Message
from .peer import Peer
from .settings import Backoff, Watchdog
from .storage import MemoryStorage, SqliteStorage, Storage
from .version import __version__

__all__ = [
    "Answer",
    "Authenticated",
    "AuthenticationRequest",
    "Backoff",
    "Client",
    "Closed",
    "Expired",
    "Failed",
    "GaveUp",
    "Handle",
    "HandlerError",
    "IdentityLost",
    "KeyRotation",
    "MemoryStorage",
    "Message",
    "Peer",
    "Receipt",
    "Refused",
    "Registered",
    "SealpostError",
    "SqliteStorage",
    "State",
    "Storage",
    "StorageError",
    "Watchdog",
    "__version__",
    "connect",
]
