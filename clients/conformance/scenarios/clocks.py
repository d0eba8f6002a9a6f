"""The wall clock of a client's machine is wrong, or is set while the client runs.

The client runs under libfaketime, which lets the kit set the wall clock of one process; the monotonic clock goes on.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..device import Device
from ..failure import Skipped
from ..scenario import scenario
from ..world import World

DAY = 86_400
PLACES = "/usr/lib*/**/faketime/libfaketimeMT.so.1"


def _library() -> Path:
    """Where libfaketime is: `FAKETIME_LIBRARY`, or where Debian puts it."""
    named = os.environ.get("FAKETIME_LIBRARY")
    found = [Path(named)] if named else sorted(Path("/").glob(PLACES.lstrip("/")))
    if not found or not found[0].is_file():
        raise Skipped("needs libfaketime (Debian package faketime, or its path in FAKETIME_LIBRARY)")
    return found[0]


class Clock:
    """The wall clock of one device."""

    def __init__(self, world: World, device: Device, file: Path) -> None:
        self._world = world
        self._device = device
        self._file = file
        device.profile.environment.update(
            {
                "LD_PRELOAD": str(_library()),
                "FAKETIME_TIMESTAMP_FILE": str(file),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
        )
        self.set(0)

    def set(self, seconds: int) -> None:
        """Sets it to the true time plus this number of seconds; at once, for a half-written file would be another time."""
        self._world.journal.note(self._device.name, f"clock {seconds:+} s")
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+}\n", encoding="ascii")
        fresh.replace(self._file)


async def _pair_with_clocks(world: World) -> tuple[Device, Device, Clock, Clock]:
    _library()
    await world.relay.start()
    alice, bob = world.new_device("alice"), world.new_device("bob")
    clocks = [Clock(world, device, device.profile.storage.with_suffix(".clock")) for device in (alice, bob)]
    for device in (alice, bob):
        await device.start()
        await device.online()
    alice.send(bob)
    bob.send(alice)
    await world.settled()
    return alice, bob, clocks[0], clocks[1]


@scenario("clock-set", "the wall clocks of both clients are set forward and back by days: all arrives, once and in order")
async def clock_set(world: World) -> None:
    alice, bob, alices, bobs = await _pair_with_clocks(world)
    for mine, yours in ((DAY, -DAY), (-DAY, 3 * DAY), (0, 0)):
        alices.set(mine)
        bobs.set(yours)
        for _ in range(5):
            alice.send(bob)
            bob.send(alice)
        alice.proxy.cut()
        bob.proxy.cut()
        await world.settled()
    await world.fenced()


@scenario(
    "clock-set-while-offline",
    "the clock is set while messages wait in the outbox: those without a ttl arrive, the others end",
)
async def clock_set_while_offline(world: World) -> None:
    alice, bob, alices, _ = await _pair_with_clocks(world)
    for offset in (-DAY, DAY, 0):
        await alice.proxy.go_away()
        for _ in range(3):
            alice.send(bob)
            alice.send(bob, ttl=3_600)
        alices.set(offset)
        alice.proxy.allow()
        await world.settled()
    await world.fenced()


@scenario(
    "clock-set-while-paced",
    "the clock is set back while the client waits for its allowance: it does not wait for the old time to come again",
    {"rate_limit.messages_per_minute": 1200, "rate_limit.burst": 5},
)
async def clock_set_while_paced(world: World) -> None:
    alice, bob, alices, _ = await _pair_with_clocks(world)
    refs = [alice.send(bob) for _ in range(40)]
    await world.told(alice, refs[10], "accepted", "ok")
    alices.set(-DAY)
    await world.told(alice, refs[25], "accepted", "ok")
    alices.set(DAY)
    await world.settled()


@scenario(
    "clock-wrong-at-start",
    "a process that starts with another clock than the one before takes up the outbox and the identity",
)
async def clock_wrong_at_start(world: World) -> None:
    alice, bob, alices, _ = await _pair_with_clocks(world)
    for offset in (-3 * DAY, 3 * DAY):
        await alice.proxy.go_away()
        for _ in range(3):
            alice.send(bob)
        await world.bell.until(lambda: alice.unsent == 3, "alice has stored three")
        await alice.kill()
        alices.set(offset)
        alice.proxy.allow()
        await alice.start()
        await alice.online()
        await world.settled()
        # All has arrived; the last Acks may still be on their way.
        await world.bell.until(lambda: alice.unsent == 0, "alice has nothing unsent")
    world.expect(len(alice.ids) == 1, "alice is the same device")
