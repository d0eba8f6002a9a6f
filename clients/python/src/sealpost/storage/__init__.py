"""Storages: where a client keeps what must outlive a connection."""

from .base import Contents, HandedOver, Identity, OutboxRecord, Storage
from .memory import MemoryStorage
from .sqlite import SqliteStorage

__all__ = ["Contents", "HandedOver", "Identity", "MemoryStorage", "OutboxRecord", "SqliteStorage", "Storage"]
