"""New keys for a peer."""

from __future__ import annotations

from ..link import Cut, Direction, Plan
from ..scenario import scenario
from ..world import World
from .cuts import QUICK


@scenario("rotate-key", "new keys arrive once, in both directions, and their senders learn it")
async def rotate_key(world: World) -> None:
    alice, bob = await world.pair()
    for number in range(5):
        alice.rotate_key(bob, f"epoch-{number}")
        bob.rotate_key(alice)
        alice.send(bob)
    await world.settled()
    world.expect([key for _, key, _ in bob.rotations] == [f"epoch-{number}" for number in range(5)], "bob has the keys in order")


@scenario("rotate-key-cuts", "the connections of both sides are cut at many bytes while a key is rotated")
async def rotate_key_cuts(world: World) -> None:
    alice, bob = await world.pair(QUICK)
    # From about the length of a resumption on: what comes before is the matter of the other cuts.
    stride = max(world.setup.stride, 2) * 2
    for cut in (alice, bob):
        for direction in Direction:
            for position in range(200 + world.setup.seed % stride, 1_400, stride):
                how = Cut.RESET if (position // stride) % 2 == 0 else Cut.FINISH
                cut.proxy.plan(Plan(cut_after=position, direction=direction, how=how))
                cut.proxy.cut()
                alice.rotate_key(bob)
                alice.send(bob)
                await world.settled()
    await world.fenced()


@scenario("rotate-key-later", "a peer that is away gets the key when it is back; the relay is killed in between")
async def rotate_key_later(world: World) -> None:
    alice, bob = await world.pair()
    await bob.kill()
    alice.rotate_key(bob)
    await world.told(alice, alice.send(bob), "accepted", "ok")
    await world.relay.kill()
    await world.relay.start()
    await bob.start()
    await world.settled()
    await world.fenced()
