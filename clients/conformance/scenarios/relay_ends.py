"""The relay is killed or restarted under traffic."""

from __future__ import annotations

import asyncio

from ..device import Device
from ..scenario import scenario
from ..world import World

ROUNDS = 4
MESSAGES = 40


async def _traffic_until_handed_over(world: World, alice: Device, bob: Device) -> None:
    """Sends in both directions, and comes back when some have arrived and others are under way."""
    before = len(bob.handed_over)
    for _ in range(MESSAGES):
        alice.send(bob)
        bob.send(alice)
    await world.handed_over(bob, before + 1)


@scenario("relay-killed", "the relay is killed with SIGKILL under traffic, several times")
async def relay_killed(world: World) -> None:
    alice, bob = await world.pair()
    for _ in range(ROUNDS):
        await _traffic_until_handed_over(world, alice, bob)
        await world.relay.kill()
        alice.send(bob)
        bob.send(alice)
        await world.relay.start()
    await world.settled()
    world.expect(len(alice.ids) == 1 and len(bob.ids) == 1, "both keep their ids")
    await world.fenced()


@scenario("relay-restarted", "the relay shuts down in an orderly way (close 1001) under traffic, and comes back")
async def relay_restarted(world: World) -> None:
    alice, bob = await world.pair()
    for _ in range(2):
        await _traffic_until_handed_over(world, alice, bob)
        await world.relay.terminate()
        await world.relay.start()
    await world.settled()
    await world.fenced()


@scenario("relay-away", "while the relay is away the client says so, tries again with back-off, and sends what has waited")
async def relay_away(world: World) -> None:
    alice, bob = await world.pair()
    await world.relay.kill()
    await world.bell.until(lambda: alice.state != "online", "alice notices")
    refs = [alice.send(bob) for _ in range(5)]
    await world.bell.until(lambda: alice.unsent == len(refs), "alice counts what is unsent")
    before = alice.proxy.accepted
    await world.bell.until(lambda: alice.proxy.accepted >= before + 5, "alice tries again and again")
    await world.relay.start()
    await world.settled()
    await world.nothing_unsent(alice)


@scenario("relay-blinks", "the relay is killed again before the clients have settled")
async def relay_blinks(world: World) -> None:
    alice, bob = await world.pair()
    for pause in (0.02, 0.05, 0.1, 0.2):
        for _ in range(10):
            alice.send(bob)
            bob.send(alice)
        await world.relay.kill()
        await world.relay.start()
        await asyncio.sleep(pause)
    await world.settled()
    await world.fenced()


@scenario("relay-late", "a client that is started before the relay sends what it was given when the relay comes")
async def relay_late(world: World) -> None:
    await world.relay.start()
    bob = await world.device("bob")
    await world.relay.kill()
    alice = world.new_device("alice")
    await alice.start()
    for _ in range(5):
        alice.send(bob)
    await world.bell.until(lambda: alice.unsent == 5, "alice counts what is unsent")
    await world.relay.start()
    await world.settled()
