"""The identity of a device: lost by the relay, or taken up twice."""

from __future__ import annotations

from ..device import Waits
from ..link import Plan
from ..scenario import scenario
from ..world import World


@scenario(
    "identity-lost",
    "the relay has lost its queue: fresh ids; what was never written goes out, what may have arrived is given up",
)
async def identity_lost(world: World) -> None:
    # A watchdog that noticed the missing Ack would write the second message, too.
    alice, bob = await world.pair(Waits(ping=60_000, timeout=10_000))
    old_ids = alice.id, bob.id
    # Of the first message alice gets no Ack, so the second is never written.
    for link in alice.proxy.links:
        link.stall_down()
    written = alice.send(bob)
    never_written = alice.send(bob)
    await world.bell.until(lambda: any(data.startswith(f"{written:06}:") for data in bob.handed_over), "bob gets it")
    await alice.proxy.go_away()
    await world.relay.kill()
    world.relay.forget_everything()
    await world.relay.start()
    await world.bell.until(lambda: bob.id != old_ids[1] and bob.state == "online", "bob registers afresh")
    to_new_id = alice.send(bob)
    alice.proxy.allow()
    await world.told(alice, written, "accepted", "gave_up")
    await world.told(alice, never_written, "accepted", "refused 404")
    await world.told(alice, to_new_id, "processed", "ok")
    await world.settled()
    world.expect(alice.identities_lost == 1 and bob.identities_lost == 1, "both say identity_lost once")
    world.expect(len(alice.ids) == 2 and alice.id != old_ids[0], "alice has a new id")
    bob.send(alice)
    await world.settled()
    await world.fenced()


@scenario(
    "replaced",
    "a second process on a copy of the storage takes over: the first says replaced and does not come back by itself",
)
async def replaced(world: World) -> None:
    alice, bob = await world.pair()
    await alice.finish()
    copy = world.new_device("copy", client=0, storage_of=alice)
    # For the books the two are one device, and only one of them is handed a message.
    await alice.start()
    await alice.online()
    await copy.start()
    await copy.online()
    await world.bell.until(lambda: alice.state == "replaced", "alice says replaced")
    before = alice.proxy.accepted
    await world.bell.never(lambda: alice.proxy.accepted > before, "alice connects again by itself", 2.0)
    world.expect(copy.state == "online", "the copy stays online")
    alice.command("reconnect")
    await alice.online()
    await world.bell.until(lambda: copy.state == "replaced", "now the copy says replaced")
    await copy.kill()
    alice_again = alice.send(bob)
    await world.told(alice, alice_again, "processed", "ok")
    # The copy has used the same id; in the books it is alice's.
    world.ledger.registered("alice", alice.id)
    await world.settled()


@scenario("overtaken", "an own connection that was given up is let through late: the device comes back when it is told to")
async def overtaken(world: World) -> None:
    alice, bob = await world.pair(Waits(ping=300, timeout=300))
    alice.proxy.plan(Plan(hold_register=True))
    alice.proxy.cut()
    await world.bell.until(
        lambda: any(link.plan.hold_register and link.held.is_set() for link in alice.proxy.links),
        "alice's Register is held",
    )
    held = alice.registrations
    alice.send(bob)
    alice.command("reconnect")
    await world.bell.until(lambda: alice.registrations > held and alice.state == "online", "a later connection is faster")
    await world.settled()
    # The relay takes the late connection for the newer one, and the client cannot know better than to say "replaced".
    alice.reconnects_when_replaced = True
    alice.proxy.let_go()
    for _ in range(5):
        alice.send(bob)
        bob.send(alice)
    await world.settled()
    await world.fenced()
