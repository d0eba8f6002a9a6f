"""A storage in one SQLite file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

from ..errors import StorageError
from .base import REMEMBERED_IDS, Contents, HandedOver, Identity, OutboxRecord

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE identity (one INTEGER PRIMARY KEY CHECK (one = 1), device_id TEXT NOT NULL, resume_token TEXT NOT NULL);
CREATE TABLE outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT, message_id TEXT NOT NULL UNIQUE, recipient TEXT NOT NULL,
    content TEXT NOT NULL, ttl INTEGER, created REAL NOT NULL, written INTEGER NOT NULL
);
CREATE TABLE handed_over (
    position INTEGER PRIMARY KEY AUTOINCREMENT, sender TEXT NOT NULL, message_id TEXT NOT NULL, answer TEXT,
    UNIQUE (sender, message_id)
);
"""

#: A change runs in the worker's thread, inside a transaction.
Change = Callable[[sqlite3.Connection], Any]


class _Job:
    """A change and the future of its caller."""

    def __init__(self, change: Change) -> None:
        self.change = change
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()

    def finish(self, result: Any, error: Exception | None) -> None:
        # Where the loop has ended, its tasks have, too, and nobody waits for the answer.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: Any, error: Exception | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class SqliteStorage:
    """One SQLite file, readable by its owner only and used by one process at a time.

    One thread does all the work, so that the event loop never waits for the disk. Changes that are waiting at the same
    time are committed together.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def open(self) -> Contents:
        """Open the file, or create it, and read everything."""
        if self._thread is not None:
            raise StorageError(f"{self.path} is in use by another client of this process")
        opened = _Job(_read)
        self._thread = threading.Thread(target=self._work, args=(opened,), name="sealpost-storage", daemon=True)
        self._thread.start()
        try:
            contents = await opened.future
        except StorageError:
            self._thread = None
            raise
        assert isinstance(contents, Contents)
        return contents

    async def save_identity(self, identity: Identity) -> None:
        """Replace the identity."""
        row = (identity.device_id, identity.resume_token)
        await self._run(lambda db: db.execute("INSERT OR REPLACE INTO identity VALUES (1, ?, ?)", row))

    async def clear_identity(self, given_up: Sequence[str]) -> None:
        """Remove the identity and these messages."""
        rows = [(message_id,) for message_id in given_up]

        def change(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM identity")
            db.executemany("DELETE FROM outbox WHERE message_id = ?", rows)

        await self._run(change)

    async def put(self, record: OutboxRecord) -> None:
        """Add a message."""
        # SQLite has no whole numbers beyond 64 bits; the relay takes a larger ttl for this one.
        ttl = None if record.ttl is None else min(record.ttl, 2**63 - 1)
        content = json.dumps(record.content)
        row = (record.message_id, record.to, content, ttl, record.created, record.written)
        await self._run(
            lambda db: db.execute(
                "INSERT INTO outbox (message_id, recipient, content, ttl, created, written) VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
        )

    async def mark_written(self, message_ids: Sequence[str]) -> None:
        """Mark messages as written."""
        rows = [(message_id,) for message_id in message_ids]
        await self._run(lambda db: db.executemany("UPDATE outbox SET written = 1 WHERE message_id = ?", rows))

    async def remove(self, message_id: str) -> None:
        """Remove a message."""
        await self._run(lambda db: db.execute("DELETE FROM outbox WHERE message_id = ?", (message_id,)))

    async def remember(self, handed_over: HandedOver) -> None:
        """Add an id, and forget the oldest beyond the limit."""
        row = (handed_over.sender, handed_over.message_id, handed_over.answer)

        def change(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO handed_over (sender, message_id, answer) VALUES (?, ?, ?)", row)
            db.execute(
                "DELETE FROM handed_over WHERE position <= (SELECT MAX(position) FROM handed_over) - ?",
                (REMEMBERED_IDS,),
            )

        await self._run(change)

    async def close(self) -> None:
        """Commit what was begun, and close the file."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.get_running_loop().run_in_executor(None, thread.join)

    async def _run(self, change: Change) -> Any:
        if self._thread is None:
            raise StorageError(f"{self.path} is closed")
        job = _Job(change)
        self._jobs.put(job)
        return await job.future

    def _work(self, opened: _Job) -> None:
        """Everything below runs in the worker's thread."""
        try:
            db = _open_database(self.path)
        except (sqlite3.Error, OSError, StorageError) as error:
            opened.finish(None, _storage_error(self.path, error))
            return
        try:
            self._carry_out(db, [opened])
            while self._carry_out(db, self._next_jobs()):
                pass
        finally:
            db.close()

    def _next_jobs(self) -> list[_Job | None]:
        jobs = [self._jobs.get()]
        while jobs[-1] is not None:
            try:
                jobs.append(self._jobs.get_nowait())
            except queue.Empty:
                break
        return jobs

    def _carry_out(self, db: sqlite3.Connection, jobs: Sequence[_Job | None]) -> bool:
        """Carry out the jobs in one transaction; False after the last."""
        todo = [job for job in jobs if job is not None]
        results: list[Any] = []
        failure: Exception | None = None
        try:
            db.execute("BEGIN IMMEDIATE")
            results = [job.change(db) for job in todo]
            db.execute("COMMIT")
        except Exception as error:  # Whatever it is, the callers must hear of it and the thread must go on.
            failure = _storage_error(self.path, error)
            if db.in_transaction:
                db.execute("ROLLBACK")
        for index, job in enumerate(todo):
            job.finish(None if failure else results[index], failure)
        return len(todo) == len(jobs)


def _open_database(path: Path) -> sqlite3.Connection:
    # SQLite gives its other files the mode of this one, so it is created before SQLite does it with a wider mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    os.chmod(path, 0o600)
    db = sqlite3.connect(path, timeout=2, isolation_level=None)
    try:
        # Two processes with one identity would replace each other's connection for ever.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN EXCLUSIVE")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            raise StorageError(f"{path} was written by another version of this package (format {version})")
        db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def _read(db: sqlite3.Connection) -> Contents:
    identity = db.execute("SELECT device_id, resume_token FROM identity").fetchone()
    outbox = db.execute("SELECT message_id, recipient, content, ttl, created, written FROM outbox ORDER BY position")
    handed_over = db.execute("SELECT sender, message_id, answer FROM handed_over ORDER BY position")
    return Contents(
        identity=Identity(*identity) if identity else None,
        outbox=[
            OutboxRecord(message_id, to, json.loads(content), ttl, created, bool(written))
            for message_id, to, content, ttl, created, written in outbox
        ],
        handed_over=[HandedOver(*row) for row in handed_over],
    )


def _storage_error(path: Path, error: Exception) -> StorageError:
    if isinstance(error, StorageError):
        return error
    if "locked" in str(error):
        return StorageError(f"{path} is in use by another process")
    return StorageError(f"{path}: {error}")
