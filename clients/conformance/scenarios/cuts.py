"""Cuts at every byte of an exchange.

A position is a number of bytes in one direction of one connection, after which this connection is cut. With `--stride 1` all
positions are tried; a larger stride tries every Nth, and the seed says which. RST and FIN alternate.
"""

from __future__ import annotations

from ..device import Device, Waits
from ..link import Cut, Direction, Plan
from ..scenario import scenario
from ..world import World

# Back-off begins anew only after a minute, so the waits would soon be the longest; this keeps them short.
QUICK = Waits(base=20, longest=40, ping=5_000, timeout=5_000)
# A fresh registration needs a process of its own, so its positions are further apart.
FRESH_STRIDE = 8
LONGEST = 20_000


def _how(position: int, stride: int) -> Cut:
    return Cut.RESET if (position // stride) % 2 == 0 else Cut.FINISH


async def _sweep(world: World, cut: Device, sender: Device, recipient: Device, direction: Direction) -> None:
    """One message for each position, until the exchange is shorter than the position."""
    stride = world.setup.stride
    for position in range(world.setup.seed % stride, LONGEST, stride):
        plan = Plan(cut_after=position, direction=direction, how=_how(position, stride))
        cut.proxy.plan(plan)
        before = cut.proxy.accepted
        cut.proxy.cut(Cut.RESET)
        sender.send(recipient)
        await world.connects_again(cut, before)
        await world.settled()
        # The connection with the plan is still there: the whole exchange has passed before the position was reached.
        if any(link.plan == plan and not link.was_cut for link in cut.proxy.links):
            return
    world.expect(False, f"an exchange is shorter than {LONGEST} bytes")


@scenario("cuts-sender", "the sender's connection is cut at every byte of connect, resume, send and receipt")
async def cuts_sender(world: World) -> None:
    alice, bob = await world.pair(QUICK)
    for direction in Direction:
        await _sweep(world, alice, alice, bob, direction)
    await world.fenced()


@scenario("cuts-recipient", "the recipient's connection is cut at every byte of connect, resume, message and ack")
async def cuts_recipient(world: World) -> None:
    alice, bob = await world.pair(QUICK)
    for direction in Direction:
        await _sweep(world, bob, alice, bob, direction)
    await world.fenced()


@scenario("cuts-register", "a fresh registration is cut at every byte, with a message waiting in the outbox")
async def cuts_register(world: World) -> None:
    await world.relay.start()
    bob = await world.device("bob", QUICK)
    stride = world.setup.stride * FRESH_STRIDE
    for direction in Direction:
        for position in range(world.setup.seed % stride, LONGEST, stride):
            plan = Plan(cut_after=position, direction=direction, how=_how(position, stride))
            newcomer = world.new_device("newcomer", QUICK)
            newcomer.name = f"newcomer-{direction.value}-{position}"
            newcomer.proxy.plan(plan)
            await newcomer.start()
            newcomer.send(bob)
            await newcomer.online()
            await world.settled()
            passed = any(link.plan == plan and not link.was_cut for link in newcomer.proxy.links)
            await newcomer.finish()
            if passed:
                break
        else:
            world.expect(False, f"an exchange is shorter than {LONGEST} bytes")
