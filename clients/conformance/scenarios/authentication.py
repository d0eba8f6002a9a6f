"""Two devices verify each other."""

from __future__ import annotations

from ..scenario import scenario
from ..world import World


@scenario("authenticate", "one side begins, both sides learn that they trust each other")
async def authenticate(world: World) -> None:
    alice, bob = await world.pair()
    for first, second in ((alice, bob), (bob, alice), (alice, bob)):
        before = second.trusted_by_itself.count(first.id)
        await world.verified(first, first.authenticate(second))
        await world.trusts(second, first, before)


@scenario("authenticate-both", "both sides begin at once, and both flows end well")
async def authenticate_both(world: World) -> None:
    alice, bob = await world.pair()
    for _ in range(5):
        mine, yours = alice.authenticate(bob), bob.authenticate(alice)
        await world.verified(alice, mine)
        await world.verified(bob, yours)


@scenario("authenticate-later", "a peer that is away answers when it is back")
async def authenticate_later(world: World) -> None:
    alice, bob = await world.pair()
    await bob.proxy.go_away()
    await world.gone(bob, alice)
    ref = alice.authenticate(bob)
    await world.told(alice, alice.send(bob), "accepted", "ok")
    bob.proxy.allow()
    await world.verified(alice, ref)
    await world.settled()


@scenario("authenticate-unknown", "a device that never was cannot be authenticated: refused with 404")
async def authenticate_unknown(world: World) -> None:
    alice, _bob = await world.pair()
    ref = alice.authenticate("00000000-0000-4000-8000-00000000dead")
    await world.bell.until(lambda: alice.failure(ref, "authenticate") is not None, "alice is told")
    failure = alice.failure(ref, "authenticate")
    if failure is not None:
        world.expect(failure.fields.get("error") == "refused", "the error is refused")
        world.expect(failure.fields.get("code") == 404, "the code is 404")


@scenario("authenticate-among-messages", "authentications in both directions while messages pass")
async def authenticate_among_messages(world: World) -> None:
    alice, bob = await world.pair()
    for _ in range(3):
        for _ in range(10):
            alice.send(bob)
            bob.send(alice)
        await world.verified(alice, alice.authenticate(bob))
        await world.verified(bob, bob.authenticate(alice))
    await world.settled()
