"""Both storages keep what they are given; the one in a file keeps it over processes."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest

from sealpost import MemoryStorage, SqliteStorage, Storage, StorageError
from sealpost.storage import Contents, HandedOver, Identity, OutboxRecord, base, sqlite

Open = Callable[[], Storage]
EMPTY = Contents(None, [], [])


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """How to open the same storage, also again."""
    if request.param == "memory":
        memory = MemoryStorage()
        return lambda: memory
    return lambda: SqliteStorage(tmp_path / "device.sqlite3")


def record(number: int, ttl: int | None = None) -> OutboxRecord:
    return OutboxRecord(f"id-{number}", "bob", {"encrypted_data": "x", "more": [1.5, None]}, ttl, 1700000000.25)


async def reopened(used: Storage, open_again: Open) -> Contents:
    await used.close()
    again = open_again()
    contents = await again.open()
    await again.close()
    return contents


async def test_everything_is_kept(storage: Open) -> None:
    used = storage()
    assert await used.open() == EMPTY
    await used.save_identity(Identity("alice", "secret"))
    await used.put(record(1, ttl=60))
    await used.put(record(2, ttl=10**30))
    await used.put(record(3))
    await used.mark_written(["id-1", "id-3", "unknown"])
    await used.remove("id-3")
    await used.remember(HandedOver("bob", "m1"))
    await used.remember(HandedOver("bob", "key:7", "true"))
    contents = await reopened(used, storage)
    assert contents.identity == Identity("alice", "secret")
    assert [(one.message_id, one.written) for one in contents.outbox] == [("id-1", True), ("id-2", False)]
    first, second = contents.outbox
    assert (first.to, first.content, first.ttl, first.created) == ("bob", record(1).content, 60, 1700000000.25)
    assert second.ttl is not None
    assert second.ttl >= 2**63 - 1
    assert contents.handed_over == [HandedOver("bob", "m1"), HandedOver("bob", "key:7", "true")]


async def test_an_identity_is_cleared_with_what_is_given_up(storage: Open) -> None:
    used = storage()
    await used.open()
    await used.save_identity(Identity("alice", "secret"))
    await used.put(record(1))
    await used.put(record(2))
    await used.remember(HandedOver("bob", "m1"))
    await used.clear_identity(["id-1"])
    contents = await reopened(used, storage)
    assert contents.identity is None
    assert [one.message_id for one in contents.outbox] == ["id-2"]
    assert contents.handed_over == [HandedOver("bob", "m1")], "ids that were handed over outlive the identity"


async def test_only_the_newest_ids_are_kept(storage: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from sealpost.storage import memory

    for module in (sqlite, memory):
        monkeypatch.setattr(module, "REMEMBERED_IDS", 3)
    used = storage()
    await used.open()
    for number in range(5):
        await used.remember(HandedOver("bob", str(number)))
    contents = await reopened(used, storage)
    assert [one.message_id for one in contents.handed_over] == ["2", "3", "4"]
    assert base.REMEMBERED_IDS == 10_000


async def test_changes_have_the_order_of_the_calls(storage: Open) -> None:
    used = storage()
    await used.open()
    await asyncio.gather(*(used.put(record(number)) for number in range(50)), used.remove("id-10"))
    contents = await reopened(used, storage)
    assert [one.message_id for one in contents.outbox] == [f"id-{number}" for number in range(50) if number != 10]


async def test_the_file_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "device.sqlite3"
    path.touch(0o644)
    used = SqliteStorage(path)
    await used.open()
    await used.put(record(1))
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    await used.close()


async def test_one_client_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "device.sqlite3"
    used = SqliteStorage(path)
    await used.open()
    with pytest.raises(StorageError, match="in use by another client"):
        await used.open()
    with pytest.raises(StorageError, match="in use by another process"):
        await SqliteStorage(path).open()
    await used.close()
    await reopened(used, lambda: SqliteStorage(path))


async def test_what_is_not_a_storage(tmp_path: Path) -> None:
    no_database = tmp_path / "text"
    no_database.write_text("something that is long enough to be read as the head of a file of SQLite" * 20)
    with pytest.raises(StorageError, match="not a database"):
        await SqliteStorage(no_database).open()
    with pytest.raises(StorageError, match="No such file"):
        await SqliteStorage(tmp_path / "nowhere" / "device.sqlite3").open()


async def test_a_later_format_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "device.sqlite3"
    with monkeypatch.context() as later:
        later.setattr(sqlite, "SCHEMA_VERSION", 2)
        await reopened(await opened(path), lambda: SqliteStorage(path))
    with pytest.raises(StorageError, match="another version of this package"):
        await SqliteStorage(path).open()


async def opened(path: Path) -> SqliteStorage:
    storage = SqliteStorage(path)
    await storage.open()
    return storage


async def test_a_closed_storage_says_so(tmp_path: Path) -> None:
    used = await opened(tmp_path / "device.sqlite3")
    await used.close()
    await used.close()
    with pytest.raises(StorageError, match="is closed"):
        await used.put(record(1))


async def test_a_change_that_fails_is_told_and_the_next_one_works(tmp_path: Path) -> None:
    used = await opened(tmp_path / "device.sqlite3")
    await used.put(record(1))
    with pytest.raises(StorageError, match="UNIQUE"):
        await used.put(record(1))
    await used.put(record(2))
    await used.close()


async def test_what_was_begun_is_carried_out_before_the_end(tmp_path: Path) -> None:
    used = await opened(tmp_path / "device.sqlite3")
    puts = [asyncio.ensure_future(used.put(record(number))) for number in range(20)]
    await asyncio.sleep(0)
    contents = await reopened(used, lambda: SqliteStorage(tmp_path / "device.sqlite3"))
    await asyncio.gather(*puts)
    assert len(contents.outbox) == 20


KILLED = """
import asyncio, sys, sealpost
from sealpost.storage import OutboxRecord

async def main():
    storage = sealpost.SqliteStorage(sys.argv[1])
    await storage.open()
    for number in range(1000):
        await storage.put(OutboxRecord(str(number), "bob", {}, None, 0.0))
        print(number, flush=True)

asyncio.run(main())
"""


async def test_what_is_safe_outlives_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "device.sqlite3"
    source = Path(sqlite.__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    ) as process:
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        safe = 20 + process.stdout.read().count("\n")
    used = SqliteStorage(path)
    contents = await used.open()
    await used.close()
    assert [one.message_id for one in contents.outbox][:safe] == [str(number) for number in range(safe)]
