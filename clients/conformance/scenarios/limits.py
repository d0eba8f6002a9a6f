"""Rate limits and full queues: delays, never losses."""

from __future__ import annotations

from ..device import Waits
from ..scenario import scenario
from ..world import World

# A scenario that counts connections must have none because of a machine that is slow for a moment.
PATIENT = Waits(ping=30_000, timeout=10_000)


@scenario(
    "rate-limited",
    "with a low allowance 60 messages arrive in order over one connection: the client paces itself",
    {"rate_limit.messages_per_minute": 1200, "rate_limit.burst": 5},
)
async def rate_limited(world: World) -> None:
    alice, bob = await world.pair(PATIENT)
    connections = alice.proxy.accepted
    for _ in range(60):
        alice.send(bob)
    await world.settled()
    world.expect(alice.proxy.accepted == connections, "alice is not closed for flooding")


@scenario(
    "allowance-cut",
    "the operator lowers the allowance while the client does not know: refusals (429) are waited out, in order",
)
async def allowance_cut(world: World) -> None:
    alice, bob = await world.pair(PATIENT)
    carol = await world.device("carol")
    connections = alice.proxy.accepted
    world.relay.reload({"rate_limit.messages_per_minute": 600, "rate_limit.burst": 5})
    for _ in range(40):
        alice.send(bob)
        alice.send(carol)
    await world.settled()
    world.expect(alice.proxy.accepted == connections, "alice is not closed for flooding")


@scenario(
    "new-process-paced",
    "a process that resumes a device whose allowance is used up is not closed, and nothing is lost",
    {"rate_limit.messages_per_minute": 600, "rate_limit.burst": 10},
)
async def new_process_paced(world: World) -> None:
    alice, bob = await world.pair()
    for _ in range(3):
        refs = [alice.send(bob) for _ in range(12)]
        await world.told(alice, refs[5], "accepted", "ok")
        await alice.kill()
        await alice.start()
    await alice.online()
    await world.settled()
    await world.fenced()


@scenario(
    "queue-full",
    "the recipient's queue is full (507): the client tries again, and all arrives in order when the recipient is back",
    {"queue.messages": 10},
)
async def queue_full(world: World) -> None:
    alice, bob = await world.pair()
    await bob.kill()
    refs = [alice.send(bob) for _ in range(30)]
    # The relay takes ten and refuses the eleventh.
    await world.told(alice, refs[9], "accepted", "ok")
    await world.bell.never(lambda: alice.outcome(refs[10], "accepted") is not None, "the queue takes more than it may", 1.5)
    await bob.start()
    await bob.online()
    await world.settled()
    await world.fenced()


@scenario(
    "queue-full-for-one",
    "one recipient whose queue is full holds up nothing for another one",
    {"queue.messages": 10},
)
async def queue_full_for_one(world: World) -> None:
    alice, bob = await world.pair()
    carol = await world.device("carol")
    await bob.kill()
    for _ in range(12):
        alice.send(bob)
    refs = [alice.send(carol) for _ in range(12)]
    await world.told(alice, refs[-1], "processed", "ok")
    await bob.start()
    await bob.online()
    await world.settled()
