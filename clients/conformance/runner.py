"""Runs scenarios and random runs, several at a time, and collects how they ended."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from .failure import Failure, Skipped
from .relay import Settings
from .world import Setup, World

TAIL_LINES = 120


@dataclass(frozen=True)
class Job:
    """One run in a world of its own."""

    name: str
    settings: Settings
    run: Callable[[World], Awaitable[None]]


@dataclass(frozen=True)
class Result:
    """How a run ended: `failure` is empty if it was good."""

    name: str
    seconds: float
    sends: int
    handled: int
    kinds: tuple[str, ...]
    failure: str = ""
    skipped: str = ""
    log: str = ""


async def run_all(jobs: list[Job], setup: Setup, at_once: int, logs: Path | None, report: Callable[[Result], None]) -> list[Result]:
    """Runs the jobs, at most this number at a time, and reports each when it ends."""
    places = asyncio.Semaphore(at_once)

    async def one(job: Job) -> Result:
        async with places:
            result = await _run(job, setup, logs)
            report(result)
            return result

    tasks = [asyncio.create_task(one(job)) for job in jobs]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        # When the kit is told to end, each run still puts its world away.
        if tasks:
            await asyncio.wait(tasks)


async def _run(job: Job, setup: Setup, logs: Path | None) -> Result:
    world = World(setup, job.settings)
    started = time.monotonic()
    try:
        failure, skipped = await _try(job, world)
    finally:
        # Also when the kit is told to end: no process is left behind.
        await world.close()
    faults = [] if skipped else world.ledger.check()
    if failure:
        failure = "\n".join([failure, *(f"  {fault}" for fault in faults[:20])])
        if logs is not None:
            world.journal.save(logs / f"{job.name.replace(' ', '-')}.log")
    bookings = world.ledger.bookings.values()
    return Result(
        name=job.name,
        seconds=time.monotonic() - started,
        sends=len(bookings),
        handled=sum(booking.handled for booking in bookings),
        kinds=tuple(fault.kind for fault in faults),
        failure=failure,
        skipped=skipped,
        log=world.journal.tail(TAIL_LINES) if failure else "",
    )


async def _try(job: Job, world: World) -> tuple[str, str]:
    """Runs a job in its world; says why it failed, and why it was skipped."""
    pauses = asyncio.create_task(world.journal.note_pauses())
    try:
        await job.run(world)
        world.check()
    except Skipped as reason:
        return "", str(reason)
    except Failure as error:
        return str(error), ""
    except Exception:
        # A mistake of the kit ends this run only, and counts as a failure of it.
        return f"the kit failed:\n{traceback.format_exc()}", ""
    finally:
        pauses.cancel()
    return "", ""
