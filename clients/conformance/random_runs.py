"""Random runs: a seed chooses devices, sends and faults; then all faults end, everything settles, and the books are checked.

The same seed gives the same plan. What the plan meets depends on how the system schedules the processes, so a fault may need
several runs of its seed to come again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Callable

from .device import Device, Waits
from .failure import Failure
from .link import Cut, Direction, Plan
from .runner import Job
from .world import World

# Fast enough that a run takes a few seconds.
WAITS = Waits(base=20, longest=500, ping=500, timeout=500)
SECONDS = 2.5
TTLS = (None, None, None, None, None, None, 0, 1, 2, 60)
SIZES = (0, 0, 0, 200, 3_000, 30_000)


@dataclass(frozen=True)
class Step:
    """One thing that happens at a time of the run."""

    at: float
    what: str
    do: Callable[[], Awaitable[None]]


def job(seed: int) -> Job:
    """The run of a seed."""

    async def run(world: World) -> None:
        await _run(world, seed)

    return Job(f"seed {seed}", {}, run)


async def _run(world: World, seed: int) -> None:
    chance = random.Random(seed)
    await world.relay.start()
    count = chance.choice((2, 2, 3, 4))
    # With two clients, the first device is of the one or of the other.
    offset = chance.randrange(len(world.setup.clients))
    devices = [world.new_device(name, WAITS, client=number + offset) for number, name in enumerate("abcd"[:count])]
    for device in devices:
        device.reconnects_when_replaced = True
        await device.start()
    for device in devices:
        await device.online()
    steps = sorted(_sends(chance, devices) + _faults(chance, world, devices), key=lambda step: step.at)
    started = time.monotonic()
    for step in steps:
        await asyncio.sleep(max(0.0, started + step.at - time.monotonic()))
        world.journal.note("plan", step.what)
        await step.do()
    world.journal.note("plan", "all faults end")
    await _heal(world, devices)
    await world.settled()
    await world.fenced()
    for device in devices:
        if device.identities_lost or len(device.ids) != 1:
            raise Failure(f"{device.name} has lost its identity")
        await world.nothing_unsent(device)


async def _heal(world: World, devices: list[Device]) -> None:
    """Ends all faults."""
    if not world.relay.running:
        await world.relay.start()
    for device in devices:
        device.proxy.behave()
        if not device.running:
            await device.start()
        device.command("handler", mode="release")
        device.command("status", status="Online")


# What the devices send.


def _sends(chance: random.Random, devices: list[Device]) -> list[Step]:
    return [_send(chance, devices) for _ in range(chance.randint(20, 120))]


def _send(chance: random.Random, devices: list[Device]) -> Step:
    sender, recipient = chance.sample(devices, 2)
    rotates, ttl, size = chance.random() < 0.05, chance.choice(TTLS), chance.choice(SIZES)

    async def do() -> None:
        # A device whose process was killed sends nothing.
        if not sender.running:
            return
        if rotates:
            sender.rotate_key(recipient)
        else:
            sender.send(recipient, ttl, size)

    what = "rotates a key of" if rotates else f"sends (ttl {ttl}, size {size}) to"
    return Step(chance.uniform(0, SECONDS), f"{sender.name} {what} {recipient.name}", do)


# What goes wrong.


def _faults(chance: random.Random, world: World, devices: list[Device]) -> list[Step]:
    kinds = (
        _cut,
        _cut,
        _cut_later,
        _cut_later,
        _stall,
        _delay,
        _refuse,
        _overtake,
        _kill_client,
        _kill_in_handler,
        _kill_off_the_net,
        _offline,
        _handler,
    )
    steps: list[Step] = []
    for _ in range(chance.randint(3, 14)):
        steps += chance.choice(kinds)(chance, chance.choice(devices))
    for _ in range(chance.choice((0, 0, 1, 2))):
        steps += _kill_relay(chance, world)
    return steps


def _moment(chance: random.Random) -> float:
    return chance.uniform(0, SECONDS)


def _how(chance: random.Random) -> Cut:
    return chance.choice(list(Cut))


def _cut(chance: random.Random, device: Device) -> list[Step]:
    how = _how(chance)

    async def do() -> None:
        device.proxy.cut(how)

    return [Step(_moment(chance), f"cut {device.name} ({how.value})", do)]


def _cut_later(chance: random.Random, device: Device) -> list[Step]:
    """The present connection is cut, and the next ones after some bytes each."""
    plans = [
        Plan(cut_after=chance.randint(0, 2_500), direction=chance.choice(list(Direction)), how=_how(chance))
        for _ in range(chance.randint(1, 3))
    ]

    async def do() -> None:
        device.proxy.plan(*plans)
        device.proxy.cut()

    return [Step(_moment(chance), f"cut {device.name} now and after {[plan.cut_after for plan in plans]} bytes", do)]


def _stall(chance: random.Random, device: Device) -> list[Step]:
    new_ones_too = chance.random() < 0.5

    async def begin() -> None:
        device.proxy.stall(new_ones_too)

    async def end() -> None:
        device.proxy.let_go()

    at = _moment(chance)
    return [
        Step(at, f"stall {device.name}", begin),
        Step(at + chance.uniform(0.05, 2.0), f"unstall {device.name}", end),
    ]


def _delay(chance: random.Random, device: Device) -> list[Step]:
    delay = chance.choice((0.005, 0.02, 0.1))

    async def begin() -> None:
        device.proxy.slow_down(delay)

    async def end() -> None:
        device.proxy.slow_down(0.0)

    at = _moment(chance)
    return [Step(at, f"delay {device.name}", begin), Step(at + chance.uniform(0.1, 1.5), f"undelay {device.name}", end)]


def _refuse(chance: random.Random, device: Device) -> list[Step]:
    async def begin() -> None:
        await device.proxy.go_away()

    async def end() -> None:
        device.proxy.allow()

    at = _moment(chance)
    return [
        Step(at, f"{device.name} off the net", begin),
        Step(at + chance.uniform(0.05, 1.5), f"{device.name} on the net", end),
    ]


def _overtake(chance: random.Random, device: Device) -> list[Step]:
    """The Register of the next connection is held; a later connection overtakes it."""

    async def begin() -> None:
        device.proxy.plan(Plan(hold_register=True))
        device.proxy.cut()

    async def end() -> None:
        device.proxy.let_go()

    at = _moment(chance)
    return [
        Step(at, f"hold a Register of {device.name}", begin),
        Step(at + chance.uniform(0.2, 2.0), f"let {device.name} go", end),
    ]


def _kill_client(chance: random.Random, device: Device) -> list[Step]:
    async def begin() -> None:
        if device.running:
            await device.kill()

    async def end() -> None:
        if not device.running:
            await device.start()

    at = _moment(chance)
    return [Step(at, f"kill {device.name}", begin), Step(at + chance.uniform(0.0, 0.5), f"start {device.name}", end)]


def _kill_in_handler(chance: random.Random, device: Device) -> list[Step]:
    """The process is killed while its handlers do not end."""

    async def hold() -> None:
        if device.running:
            device.command("handler", mode="hold")

    kill, start = _kill_client(chance, device)
    return [Step(max(0.0, kill.at - chance.uniform(0.05, 0.5)), f"handlers of {device.name} do not end", hold), kill, start]


def _kill_off_the_net(chance: random.Random, device: Device) -> list[Step]:
    """The process is killed while its outbox fills."""

    async def leave() -> None:
        await device.proxy.go_away()

    async def come_back() -> None:
        device.proxy.allow()

    kill, start = _kill_client(chance, device)
    return [
        Step(max(0.0, kill.at - chance.uniform(0.05, 0.5)), f"{device.name} off the net", leave),
        kill,
        start,
        Step(start.at + chance.uniform(0.0, 0.3), f"{device.name} on the net", come_back),
    ]


def _offline(chance: random.Random, device: Device) -> list[Step]:
    def say(status: str) -> Callable[[], Awaitable[None]]:
        async def do() -> None:
            if device.running:
                device.command("status", status=status)

        return do

    at = _moment(chance)
    return [
        Step(at, f"{device.name} says Offline", say("Offline")),
        Step(at + chance.uniform(0.1, 1.5), f"{device.name} says Online", say(chance.choice(("Online", "Away")))),
    ]


def _handler(chance: random.Random, device: Device) -> list[Step]:
    def set_mode(mode: str) -> Callable[[], Awaitable[None]]:
        async def do() -> None:
            if device.running:
                device.command("handler", mode=mode)

        return do

    at = _moment(chance)
    if chance.random() < 0.5:
        return [Step(at, f"the next handler of {device.name} fails", set_mode("fail_once"))]
    return [
        Step(at, f"handlers of {device.name} do not end", set_mode("hold")),
        Step(at + chance.uniform(0.1, 1.0), f"handlers of {device.name} end", set_mode("release")),
    ]


def _kill_relay(chance: random.Random, world: World) -> list[Step]:
    async def begin() -> None:
        if world.relay.running:
            await world.relay.kill()

    async def end() -> None:
        if not world.relay.running:
            await world.relay.start()

    at = _moment(chance)
    return [Step(at, "kill the relay", begin), Step(at + chance.uniform(0.0, 0.8), "start the relay", end)]
