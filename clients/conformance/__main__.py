"""The command line of the kit: see README.md."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path

from . import random_runs
from .runner import Job, Result, run_all
from .scenarios import ALL
from .world import Setup

TOLD_TO_END = 130


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python3 -m conformance", description="Checks clients of Sealpost against the real relay."
    )
    parser.add_argument("--client", help="command of a client's driver")
    parser.add_argument("--client2", help="command of another client's driver: the devices take turns with the two")
    parser.add_argument("--relay", help="the relay's binary (default: SEALPOST_BIN, or sealpost in PATH)")
    parser.add_argument(
        "--scenario",
        action="append",
        metavar="NAME",
        help="run only this scenario, or `none` (can be given more than once; default: all)",
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios and end")
    parser.add_argument("--runs", type=int, default=0, help="how many random runs (default: 0)")
    parser.add_argument("--seed", type=int, help="seed of the first random run (default: random; the next ones count up)")
    parser.add_argument("--jobs", type=int, default=4, help="how many runs at the same time (default: 4)")
    parser.add_argument("--stride", type=int, default=32, help="cut at every Nth byte (default: 32; 1 is every byte)")
    parser.add_argument("--patience", type=float, default=90.0, help="seconds until a wait counts as in vain (default: 90)")
    parser.add_argument("--logs", type=Path, help="directory for the whole logs of runs that failed")
    options = parser.parse_args()
    if options.list:
        for each in ALL.values():
            print(f"{each.name:<28} {each.shows}")
        sys.exit(0)
    if options.client is None:
        parser.error("--client is missing")
    for name in ("jobs", "stride"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    if options.runs < 0:
        parser.error("--runs must be 0 or more")
    return options


def relay_binary(named: str | None) -> Path:
    """Where the relay's binary is."""
    found = named or os.environ.get("SEALPOST_BIN") or shutil.which("sealpost")
    if found is None:
        sys.exit("no relay: give --relay PATH, or set SEALPOST_BIN")
    path = Path(found).resolve()
    if not path.is_file():
        sys.exit(f"no relay: {path} is no file")
    return path


def jobs(names: list[str] | None, runs: int, seed: int) -> list[Job]:
    """The runs that were asked for."""
    chosen = list(ALL) if names is None else [name for name in names if name != "none"]
    unknown = [name for name in chosen if name not in ALL]
    if unknown:
        sys.exit(f"no scenario {', '.join(unknown)}: see --list")
    fixed = [Job(ALL[name].name, ALL[name].settings, ALL[name].run) for name in chosen]
    return fixed + [random_runs.job(seed + number) for number in range(runs)]


def report(result: Result) -> None:
    """Prints one line when a run ends, and what is known when it has failed."""
    state = "FAILED" if result.failure else "skipped" if result.skipped else "ok"
    print(f"{state:<8} {result.name:<28} {result.seconds:6.1f} s {result.sends:6} sends  {result.skipped}", flush=True)
    if result.failure:
        print(f"{result.log}\n{result.name} failed: {result.failure}\n", flush=True)


def summary(results: list[Result], seconds: float) -> str:
    """The table at the end."""
    good = sum(not result.failure and not result.skipped for result in results)
    kinds = Counter(kind for result in results for kind in result.kinds)
    rows = [
        ("runs", len(results)),
        ("good", good),
        ("failed", sum(bool(result.failure) for result in results)),
        ("skipped", sum(bool(result.skipped) for result in results)),
        ("sends", sum(result.sends for result in results)),
        ("handled", sum(result.handled for result in results)),
        *((kind, kinds[kind]) for kind in ("lost", "doubled", "reordered", "untold")),
        *((kind, number) for kind, number in kinds.items() if kind not in ("lost", "doubled", "reordered", "untold")),
    ]
    lines = [f"{name:<12} {number:8}" for name, number in rows]
    lines.append(f"{'seconds':<12} {seconds:8.0f}")
    lines += [f"failed: {result.name}" for result in results if result.failure]
    return "\n".join(lines)


async def _until_told_to_end(work: Coroutine[None, None, list[Result]]) -> list[Result]:
    """SIGINT and SIGTERM end all runs in an orderly way: relays and drivers end with the kit."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


def main() -> int:
    """Runs everything; 1 if anything failed."""
    options = arguments()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    clients = tuple(client for client in (options.client, options.client2) if client is not None)
    setup = Setup(clients, relay_binary(options.relay), seed, options.stride, options.patience)
    if options.logs is not None:
        options.logs.mkdir(parents=True, exist_ok=True)
    wanted = jobs(options.scenario, options.runs, seed)
    print(f"{len(wanted)} runs, seed {seed}, clients: {' and '.join(clients)}", flush=True)
    started = time.monotonic()
    try:
        results = asyncio.run(_until_told_to_end(run_all(wanted, setup, options.jobs, options.logs, report)))
    except asyncio.CancelledError:
        print("told to end")
        return TOLD_TO_END
    print(summary(results, time.monotonic() - started))
    return 1 if any(result.failure for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
