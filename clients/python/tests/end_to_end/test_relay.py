"""Two clients, and the real relay between them."""

from __future__ import annotations

import asyncio
import signal

import pytest

from sealpost import (
    Answer,
    AuthenticationRequest,
    Client,
    Expired,
    GaveUp,
    KeyRotation,
    MemoryStorage,
    Message,
    Refused,
    connect,
)
from tests.support.relay_process import RelayProcess

from .conftest import MakeDevice, StartRelay

NOBODY = "00000000-0000-4000-8000-00000000dead"


class Inbox:
    """What a device was handed."""

    def __init__(self, client: Client) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        client.on_message(self._take)

    async def _take(self, message: Message) -> None:
        self.messages.put_nowait(message)

    async def next(self) -> Message:
        return await self.messages.get()


async def test_a_message_travels(make_device: MakeDevice) -> None:
    alice, bob = await make_device("alice"), await make_device("bob")
    inbox = Inbox(bob)
    handle = await alice.send(await bob.registered(), "Zm9v", ttl=60, content_type="Text", fields={"x": [1, "é"]})
    await handle.accepted
    message = await inbox.next()
    assert (message.sender, message.id, message.data) == (alice.device_id, handle.id, "Zm9v")
    assert (message.content_type, message.payload["x"]) == ("Text", [1, "é"])
    assert await handle.processed == "processed"
    assert alice.unsent == 0


async def test_a_device_is_the_same_after_a_restart_of_its_process(make_device: MakeDevice) -> None:
    alice, bob = await make_device("alice"), await make_device("bob")
    first = await bob.registered()
    await bob.close()
    handles = [await alice.send(first, str(number)) for number in range(20)]
    await handles[-1].accepted
    bob = await make_device("bob")
    inbox = Inbox(bob)
    assert await bob.registered() == first
    assert [(await inbox.next()).data for _ in range(20)] == [str(number) for number in range(20)]
    for handle in handles:
        assert await handle.processed == "processed"


async def test_what_was_sent_without_a_relay_arrives_when_it_is_there(
    relay: RelayProcess, make_device: MakeDevice
) -> None:
    alice, bob = await make_device("alice"), await make_device("bob")
    inbox = Inbox(bob)
    to, _ = await bob.registered(), await alice.registered()
    # What was acked is on disk, and both devices with it: a kill right after a registration can lose the device.
    await (await alice.send(to, "first")).accepted
    await inbox.next()
    await relay.stop(signal.SIGKILL)
    handles = [await alice.send(to, str(number)) for number in range(10)]
    await relay.start()
    for number, handle in enumerate(handles):
        assert await handle.processed == "processed"
        assert (await inbox.next()).data == str(number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_is_lost_or_doubled_by_restarts_of_the_relay(
    relay: RelayProcess, make_device: MakeDevice, number: signal.Signals
) -> None:
    alice, bob = await make_device("alice"), await make_device("bob")
    inbox = Inbox(bob)
    to = await bob.registered()
    handles = []
    for _ in range(4):
        handles += [await alice.send(to, "data") for _ in range(10)]
        await handles[-8].accepted
        await relay.stop(number)
        await relay.start()
    for handle in handles:
        assert await handle.processed == "processed"
    assert [(await inbox.next()).id for _ in handles] == [handle.id for handle in handles]
    assert inbox.messages.empty()


async def test_the_relay_refuses_and_expires(make_device: MakeDevice) -> None:
    alice, bob = await make_device("alice"), await make_device("bob")
    to = await bob.registered()
    await bob.close()
    nobody = await alice.send(NOBODY, "data")
    short = await alice.send(to, "data", ttl=1)
    now_only = await alice.send(to, "data", ttl=0)
    large = await alice.send(to, "x" * 70_000)
    with pytest.raises(Refused) as refused:
        await nobody.accepted
    assert refused.value.code == 404
    with pytest.raises(Refused) as refused:
        await large.accepted
    assert refused.value.code == 413
    for handle in (now_only, short):
        with pytest.raises(Expired) as expired:
            await handle.processed
        assert expired.value.code == 410


async def test_a_small_allowance_is_kept(start_relay: StartRelay, make_device: MakeDevice) -> None:
    """With 4 at once and 5 a second, 20 messages to 20 devices pass without one refusal being needed."""
    relay = await start_relay(rate_limit__burst="4", limits__exempt_cidrs="127.0.0.0/8")
    alice = await make_device("alice", relay.url)
    bob = await make_device("bob", relay.url)
    to = await bob.registered()
    Inbox(bob)
    handles = [await alice.send(to, str(number)) for number in range(20)]
    for handle in handles:
        assert await handle.processed == "processed"


async def test_a_lost_identity_becomes_a_new_device(
    relay: RelayProcess, start_relay: StartRelay, make_device: MakeDevice
) -> None:
    bob = await make_device("bob")
    first = await bob.registered()
    await bob.close()
    another = await start_relay()
    bob = await make_device("bob", another.url)
    lost = asyncio.get_running_loop().create_future()
    bob.on("identity_lost", lambda event: lost.set_result(event.device_id))
    assert await lost == first
    assert await bob.registered() != first


async def test_a_replaced_client_stays_away_until_it_is_told(relay: RelayProcess) -> None:
    storage = MemoryStorage()
    async with connect(relay.url, storage=storage) as first:
        own = await first.registered()
        replaced = asyncio.Event()
        first.on("state", lambda state: replaced.set() if state.name == "replaced" else None)
        copy = MemoryStorage()
        copy.identity = storage.identity
        async with connect(relay.url, storage=copy) as second:
            assert await second.registered() == own
            await replaced.wait()
        first.reconnect()
        assert await first.registered() == own


async def test_an_access_token(start_relay: StartRelay, make_device: MakeDevice) -> None:
    relay = await start_relay()
    token = (await relay.command("token", "new", "fleet")).split()[-1]
    await relay.stop()
    relay.set(access__mode="tokens")
    await relay.start()
    alice = await make_device("alice", relay.url, token)
    assert await alice.registered()
    stranger = await make_device("stranger", relay.url)
    with pytest.raises(GaveUp, match="access token"):
        await stranger.registered()


async def test_two_devices_authenticate_and_rotate_keys(make_device: MakeDevice) -> None:
    alice, bob = await make_device("alice"), await make_device("bob")
    await alice.registered()
    to = await bob.registered()
    keys: list[KeyRotation] = []

    @bob.on_authenticate
    async def answer(request: AuthenticationRequest) -> Answer:
        return Answer(sign=lambda challenge: f"bob:{challenge}", verify=lambda c, r: r == f"alice:{c}")

    @bob.on_key_rotation
    async def take(rotation: KeyRotation) -> bool:
        keys.append(rotation)
        return rotation.package == "good"

    trusted = asyncio.get_running_loop().create_future()
    bob.on("authenticated", lambda event: trusted.set_result(event.peer))
    peer = alice.peer(to)
    await peer.authenticate(public_key="alices key", sign=lambda c: f"alice:{c}", verify=lambda c, r: r == f"bob:{c}")
    assert await trusted == alice.device_id
    await peer.rotate_key("good")
    with pytest.raises(Refused):
        await peer.rotate_key("bad", 7)
    assert [(key.sender, key.package) for key in keys] == [(alice.device_id, "good"), (alice.device_id, "bad")]
    assert keys[1].key_id == 7
    with pytest.raises(Refused):
        await peer.authenticate(public_key="x", sign=lambda c: f"mallory:{c}", verify=lambda c, r: True)


async def test_both_sides_authenticate_at_once(make_device: MakeDevice) -> None:
    alice, bob = await make_device("alice"), await make_device("bob")
    ids = [await alice.registered(), await bob.registered()]
    for _ in range(5):
        await asyncio.gather(
            alice.peer(ids[1]).authenticate(
                public_key="a", sign=lambda c: f"alice:{c}", verify=lambda c, r: r == f"bob:{c}"
            ),
            bob.peer(ids[0]).authenticate(
                public_key="b", sign=lambda c: f"bob:{c}", verify=lambda c, r: r == f"alice:{c}"
            ),
        )


async def test_a_device_that_holds_its_messages(make_device: MakeDevice) -> None:
    alice, bob = await make_device("alice"), await make_device("bob")
    inbox = Inbox(bob)
    to = await bob.registered()
    bob.set_status("Offline")
    # What bob sends to himself shows that the relay has read his status.
    await (await bob.send(to, "own")).accepted
    handle = await alice.send(to, "later")
    await handle.accepted
    assert inbox.messages.empty()
    bob.set_status("Online")
    assert {(await inbox.next()).data, (await inbox.next()).data} == {"own", "later"}
    await handle.processed


async def test_unregister(make_device: MakeDevice) -> None:
    alice, bob = await make_device("alice"), await make_device("bob")
    to = await bob.registered()
    await bob.unregister()
    with pytest.raises(Refused) as refused:
        await (await alice.send(to, "data")).accepted
    assert refused.value.code == 404
    bob = await make_device("bob")
    assert await bob.registered() != to


async def test_a_handler_that_fails_once(make_device: MakeDevice) -> None:
    alice, bob = await make_device("alice"), await make_device("bob")
    tries: list[str] = []

    @bob.on_message
    async def handle(message: Message) -> None:
        tries.append(message.data)
        if len(tries) == 1:
            raise RuntimeError("not now")

    to = await bob.registered()
    handles = [await alice.send(to, "first"), await alice.send(to, "second")]
    for one in handles:
        assert await one.processed == "processed"
    assert tries == ["first", "first", "second"]
