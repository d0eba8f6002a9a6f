"""Connections that die without a word, and upgrades that are refused."""

from __future__ import annotations

from ..device import Waits
from ..link import Cut, Plan
from ..scenario import scenario
from ..world import World

WATCHFUL = Waits(ping=500, timeout=500)


def _refusal(status: str, *headers: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: text/plain",
        "Content-Length: 3",
        "Connection: close",
        *headers,
        "",
        "no\n",
    ]
    return "\r\n".join(lines).encode()


@scenario("half-dead", "a connection stays open and carries nothing: the watchdog drops it, a new one carries on")
async def half_dead(world: World) -> None:
    alice, bob = await world.pair(WATCHFUL)
    for side in (alice, bob):
        before = side.proxy.accepted
        side.proxy.stall(new_ones_too=False)
        alice.send(bob)
        bob.send(alice)
        await world.connects_again(side, before)
        await world.settled()
        side.proxy.let_go()
    await world.fenced()


@scenario("deaf-net", "new connections are accepted and carry nothing for a while: the client gives them up, and comes back")
async def deaf_net(world: World) -> None:
    alice, bob = await world.pair(WATCHFUL)
    before = alice.proxy.accepted
    alice.proxy.stall(new_ones_too=True)
    alice.send(bob)
    bob.send(alice)
    await world.bell.until(lambda: alice.proxy.accepted >= before + 2, "alice gives up a connection that was never served")
    alice.proxy.let_go()
    await world.settled()
    await world.fenced()


@scenario("slow-net", "a connection with a long delay for each chunk: all arrives, in order")
async def slow_net(world: World) -> None:
    alice, bob = await world.pair(Waits(ping=5_000, timeout=5_000))
    alice.proxy.slow_down(0.1)
    bob.proxy.slow_down(0.05)
    for _ in range(10):
        alice.send(bob)
        bob.send(alice)
    await world.settled()


@scenario("refused-upgrade", "upgrades that are refused (502, 503, 429 with Retry-After) or not HTTP at all are tried again")
async def refused_upgrade(world: World) -> None:
    alice, bob = await world.pair()
    alice.proxy.plan(
        Plan(answer=_refusal("502 Bad Gateway")),
        Plan(answer=_refusal("503 Service Unavailable", "Retry-After: 1")),
        Plan(answer=_refusal("429 Too Many Requests", "Retry-After: 1")),
        Plan(answer=b"this is no HTTP\r\n\r\n"),
    )
    alice.proxy.cut(Cut.RESET)
    alice.send(bob)
    bob.send(alice)
    await world.settled()
    await world.fenced()


@scenario("reconnect", "the application asks for a connection while the back-off waits: the attempt is made at once")
async def reconnect(world: World) -> None:
    alice, bob = await world.pair(Waits(base=600_000, longest=600_000))
    # With a back-off of up to ten minutes it would hardly come back by itself; a wait of a few seconds can still happen.
    await alice.proxy.go_away()
    await world.bell.until(lambda: alice.state != "online", "alice is offline")
    alice.send(bob)
    alice.proxy.allow()
    alice.command("reconnect")
    await alice.online()
    await world.settled()
