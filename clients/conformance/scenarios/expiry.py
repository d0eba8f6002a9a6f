"""The ttl of a message, and what its sender is told."""

from __future__ import annotations

from ..scenario import scenario
from ..world import World


@scenario("ttl-at-relay", "a message that expires at the relay (410) is told to its sender after it was accepted")
async def ttl_at_relay(world: World) -> None:
    alice, bob = await world.pair()
    await bob.kill()
    short = alice.send(bob, ttl=1)
    long = alice.send(bob, ttl=600)
    await world.told(alice, short, "accepted", "ok")
    await world.told(alice, short, "processed", "expired")
    await world.told(alice, short, "delivered", "expired")
    await bob.start()
    await world.told(alice, long, "processed", "ok")
    await world.settled()
    world.expect(not any(data.startswith(f"{short:06}:") for data in bob.handed_over), "what has expired is not handed over")


@scenario("ttl-in-outbox", "a message that expires in the outbox is told to its sender, and is not sent later")
async def ttl_in_outbox(world: World) -> None:
    alice, bob = await world.pair()
    await alice.proxy.go_away()
    short = alice.send(bob, ttl=1)
    long = alice.send(bob, ttl=600)
    await world.told(alice, short, "accepted", "expired")
    await world.bell.until(lambda: alice.unsent == 1, "what has expired is not unsent any more")
    alice.proxy.allow()
    await world.told(alice, long, "processed", "ok")
    await world.settled()
    world.expect(not any(data.startswith(f"{short:06}:") for data in bob.handed_over), "what has expired is not handed over")


@scenario("ttl-behind-another", "a message that expires behind one that is under way does not hold up those after it")
async def ttl_behind_another(world: World) -> None:
    alice, bob = await world.pair()
    for link in alice.proxy.links:
        link.stall_down()
    first = alice.send(bob)
    short = alice.send(bob, ttl=1)
    last = alice.send(bob)
    await world.told(alice, short, "accepted")
    await world.told(alice, first, "processed", "ok")
    await world.told(alice, last, "processed", "ok")
    await world.settled()


@scenario("ttl-zero", "ttl 0 is for now only: delivered to who is there, expired for who is away or while offline")
async def ttl_zero(world: World) -> None:
    alice, bob = await world.pair()
    there = alice.send(bob, ttl=0)
    await world.told(alice, there, "processed", "ok")
    await world.handed_over(bob, 2)
    await bob.kill()
    await world.gone(bob, alice)
    await world.told(alice, alice.send(bob, ttl=0), "accepted", "expired")
    await alice.proxy.go_away()
    await world.bell.until(lambda: alice.state != "online", "alice notices that it is offline")
    offline = alice.send(bob, ttl=0)
    await world.told(alice, offline, "accepted", "expired")
    alice.proxy.allow()
    await bob.start()
    await bob.online()
    await world.settled()
