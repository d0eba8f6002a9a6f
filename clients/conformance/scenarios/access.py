"""Access tokens, and other refusals that end all attempts."""

from __future__ import annotations

from ..device import Device
from ..scenario import scenario
from ..world import World

# How long the kit looks whether a client tries again although it must not; its longest back-off is half a second.
LOOK_SECONDS = 2.0


async def _stays_offline(world: World, device: Device) -> None:
    """The device says offline and why, and does not try again."""
    await world.bell.until(lambda: device.state == "offline" and device.reason != "", f"{device.name} is offline, with a reason")
    before = device.proxy.accepted
    await world.bell.never(lambda: device.proxy.accepted > before, f"{device.name} tries again by itself", LOOK_SECONDS)


@scenario(
    "access-token",
    "with its access token a device registers, and it resumes after a restart of the relay",
    {"access.mode": "tokens"},
)
async def access_token(world: World) -> None:
    token = await world.relay.new_access_token("fleet")
    await world.relay.start()
    alice = await world.device("alice", access_token=token)
    bob = await world.device("bob", access_token=token)
    alice.send(bob)
    bob.send(alice)
    await world.settled()
    await world.relay.kill()
    await world.relay.start()
    alice.send(bob)
    await world.settled()
    world.expect(len(alice.ids) == 1, "alice is resumed")


@scenario(
    "access-token-wrong",
    "with a wrong access token, or none, a device is offline with the reason and does not try again",
    {"access.mode": "tokens"},
)
async def access_token_wrong(world: World) -> None:
    token = await world.relay.new_access_token("fleet")
    await world.relay.start()
    wrong = token[:-8] + ("0" * 8 if not token.endswith("0" * 8) else "1" * 8)
    mallory = world.new_device("mallory", access_token=wrong)
    await mallory.start()
    await _stays_offline(world, mallory)
    nobody = world.new_device("nobody")
    await nobody.start()
    await _stays_offline(world, nobody)
    # The application gives the right token to a new process.
    await mallory.finish()
    mallory.profile.access_token = token
    await mallory.start()
    await mallory.online()


@scenario("blocked", "a device that the operator blocks (close 4403, then 403) is offline with the reason and does not try again")
async def blocked(world: World) -> None:
    alice, bob = await world.pair()
    await world.relay.operate("device", "block", bob.id)
    await _stays_offline(world, bob)
    # The application may try; the answer is the same.
    bob.command("reconnect")
    await world.bell.until(lambda: bob.state != "offline", "bob tries")
    await _stays_offline(world, bob)
    await world.relay.operate("device", "unblock", bob.id)
    bob.command("reconnect")
    await bob.online()
    world.expect(len(bob.ids) == 1, "bob has kept its identity")
    alice.send(bob)
    bob.send(alice)
    await world.settled()


@scenario("disconnected", "a device that the operator disconnects (close 1012) comes back by itself")
async def disconnected(world: World) -> None:
    alice, bob = await world.pair()
    before = bob.proxy.accepted
    await world.relay.operate("device", "kick", bob.id)
    await world.connects_again(bob, before)
    alice.send(bob)
    bob.send(alice)
    await world.settled()
