"""Devices that talk, without and with faults; with two clients these are two languages."""

from __future__ import annotations

from ..link import Cut
from ..scenario import scenario
from ..world import World


@scenario(
    "talk",
    "messages in both directions arrive in order, each is told accepted, delivered and processed, none stays unsent",
)
async def talk(world: World) -> None:
    alice, bob = await world.pair()
    for number in range(30):
        alice.send(bob, size=100 * number)
        bob.send(alice)
    await world.settled()
    await world.nothing_unsent(alice)
    await world.nothing_unsent(bob)
    await world.fenced()


@scenario("to-itself", "a device may write to itself")
async def to_itself(world: World) -> None:
    await world.relay.start()
    alice = await world.device("alice")
    for _ in range(5):
        alice.send(alice)
    await world.settled()


@scenario("two-languages", "two clients verify each other, rotate keys both ways and chat, with cuts in between")
async def two_languages(world: World) -> None:
    alice, bob = await world.pair()
    for first, second in ((alice, bob), (bob, alice)):
        await world.verified(first, first.authenticate(second))
        await world.trusts(second, first)
    alice.rotate_key(bob)
    bob.rotate_key(alice)
    await world.settled()
    for number in range(50):
        alice.send(bob)
        bob.send(alice)
        if number % 20 == 10:
            alice.proxy.cut(Cut.RESET)
            bob.rotate_key(alice)
        if number % 20 == 15:
            bob.proxy.cut(Cut.FINISH)
            alice.rotate_key(bob)
    await world.settled()
    await world.fenced()


@scenario("unknown-recipient", "a message for a device that never was is refused with 404, later ones for others go on")
async def unknown_recipient(world: World) -> None:
    alice, bob = await world.pair()
    ref = alice.send("00000000-0000-4000-8000-00000000dead")
    alice.send(bob)
    await world.told(alice, ref, "accepted", "refused 404")
    await world.settled()


@scenario("too-large", "a message that is larger than the relay takes is refused with 413, and the others arrive")
async def too_large(world: World) -> None:
    alice, bob = await world.pair()
    alice.send(bob)
    beyond_a_frame = alice.send(bob, size=70_000)
    beyond_a_websocket_message = alice.send(bob, size=200_000)
    alice.send(bob)
    await world.told(alice, beyond_a_frame, "accepted", "refused 413")
    await world.told(alice, beyond_a_websocket_message, "accepted", "refused 413")
    await world.settled()


@scenario("status-offline", "a device that says Offline gets nothing until it says Online")
async def status_offline(world: World) -> None:
    alice, bob = await world.pair()
    # Alice does not confirm, for then the Ack to bob would be a receipt, and Offline may hold receipts.
    alice.command("handler", mode="hold")
    bob.command("status", status="Offline")
    # The relay serves the frames of one connection in their order: when this is accepted, it has read the status.
    await world.told(bob, bob.send(alice), "accepted", "ok")
    before = len(bob.handed_over)
    refs = [alice.send(bob) for _ in range(3)]
    await world.told(alice, refs[-1], "accepted", "ok")
    await world.bell.never(lambda: len(bob.handed_over) > before, "bob is handed messages while Offline", 0.5)
    alice.command("handler", mode="release")
    bob.command("status", status="Online")
    await world.settled()
    world.expect(len(bob.handed_over) == before + 3, "bob gets what has waited")


@scenario("unregister", "a device that unregisters is gone: what is sent to it is refused with 404")
async def unregister(world: World) -> None:
    alice, bob = await world.pair()
    old_id = bob.id
    bob.command("unregister")
    await world.bell.until(lambda: bob.state in ("closed", "offline"), "bob's connection ends")
    ref = alice.send(old_id, recipient="bob")
    await world.told(alice, ref, "accepted", "refused 404")
    await bob.finish()
    await bob.start()
    await bob.online()
    world.expect(bob.id != old_id, "bob has a new id")
    alice.send(bob)
    await world.settled()


@scenario("close", "a client that is closed tries nothing again; its storage is the same device later")
async def close(world: World) -> None:
    alice, bob = await world.pair()
    bob.command("close")
    await world.bell.until(lambda: bob.state == "closed", "bob is closed")
    before = bob.proxy.accepted
    alice.send(bob)
    await world.bell.never(lambda: bob.proxy.accepted > before, "bob connects again", 1.0)
    await bob.finish()
    old_id = bob.id
    await bob.start()
    await bob.online()
    await world.settled()
    world.expect(bob.id == old_id, "bob is the same device")
