"""The process of a client is killed, and another one takes up its storage."""

from __future__ import annotations

from ..scenario import scenario
from ..world import World


@scenario("sender-killed", "what was stored when the sender's process was killed is sent by the next one, once and in order")
async def sender_killed(world: World) -> None:
    alice, bob = await world.pair()
    for _ in range(3):
        await alice.proxy.go_away()
        for _ in range(10):
            alice.send(bob)
        await world.bell.until(lambda: alice.unsent == 10, "alice has stored ten")
        await alice.kill()
        alice.proxy.allow()
        await alice.start()
        alice.send(bob)
        await alice.online()
        await world.settled()
        # All has arrived; the last Acks may still be on their way.
        await world.bell.until(lambda: alice.unsent == 0, "alice has nothing unsent")
    world.expect(len(alice.ids) == 1, "alice is the same device")
    await world.fenced()


@scenario("sender-killed-under-way", "the sender's process is killed while its messages are under way")
async def sender_killed_under_way(world: World) -> None:
    alice, bob = await world.pair()
    for round_ in range(5):
        refs = [alice.send(bob) for _ in range(20)]
        await world.told(alice, refs[3 * round_], "accepted", "ok")
        await alice.kill()
        await alice.start()
    await alice.online()
    await world.settled()
    await world.fenced()


@scenario("recipient-killed", "the recipient's process is killed while it handles messages; nothing is lost")
async def recipient_killed(world: World) -> None:
    alice, bob = await world.pair()
    for _ in range(5):
        before = len(bob.handed_over)
        for _ in range(20):
            alice.send(bob)
        await world.handed_over(bob, before + 4)
        await bob.kill()
        await bob.start()
        await bob.online()
    await world.settled()
    await world.fenced()


@scenario("recipient-killed-in-handler", "a message that was begun and not handled when its process was killed comes again")
async def recipient_killed_in_handler(world: World) -> None:
    alice, bob = await world.pair()
    bob.command("handler", mode="hold")
    before = len(bob.handed_over)
    refs = [alice.send(bob) for _ in range(3)]
    await world.handed_over(bob, before + 1)
    await bob.kill()
    await bob.start()
    await world.told(alice, refs[-1], "processed", "ok")
    await world.settled()
    first = sum(data.startswith(f"{refs[0]:06}:") for data in bob.handed_over)
    world.expect(first == 2, "the message that was begun came twice, and was handled once")


@scenario("finished-and-started", "a process that ends in an orderly way leaves its outbox to the next one")
async def finished_and_started(world: World) -> None:
    alice, bob = await world.pair()
    await alice.proxy.go_away()
    for _ in range(5):
        alice.send(bob)
    await world.bell.until(lambda: alice.unsent == 5, "alice has stored five")
    await alice.finish()
    alice.proxy.allow()
    await alice.start()
    await alice.online()
    await world.settled()


@scenario("both-killed", "all processes and the relay are killed at once")
async def both_killed(world: World) -> None:
    alice, bob = await world.pair()
    for _ in range(3):
        refs = [alice.send(bob) for _ in range(20)]
        for _ in range(20):
            bob.send(alice)
        await world.told(alice, refs[5], "accepted", "ok")
        await alice.kill()
        await world.relay.kill()
        await bob.kill()
        await world.relay.start()
        await bob.start()
        await alice.start()
    await alice.online()
    await bob.online()
    await world.settled()
    await world.fenced()


@scenario("receipts-of-before", "what becomes of messages of an earlier process is told to the next one by events")
async def receipts_of_before(world: World) -> None:
    alice, bob = await world.pair()
    await bob.kill()
    kept = alice.send(bob)
    short = alice.send(bob, ttl=1)
    await world.told(alice, kept, "accepted", "ok")
    await world.told(alice, short, "accepted", "ok")
    await alice.kill()
    await alice.start()
    await world.bell.until(lambda: any(event.kind == "expired" for event in alice.events), "alice learns that one has expired")
    await bob.start()
    await world.bell.until(lambda: any(event.kind == "receipt" for event in alice.events), "alice learns that one has arrived")
    await world.settled()
