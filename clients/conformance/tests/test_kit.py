"""The kit as a whole, with the reference driver: it finds each fault, and finds none where there is none.

Needs a relay: SEALPOST_BIN.
"""

from __future__ import annotations

import asyncio
import os
import sys
import unittest
from pathlib import Path

from .. import random_runs
from ..runner import Job, Result, run_all
from ..scenarios import ALL
from ..world import Setup
from .fake_driver import FAULTS

# For each fault, a scenario that finds it, and how the ledger names it ("" where the scenario itself does).
FINDS = {
    "lose": ("talk", "lost"),
    "ack-early": ("recipient-killed-in-handler", "lost"),
    "forget-outbox": ("sender-killed", "lost"),
    "forget-ids": ("cuts-recipient", "doubled"),
    "new-ids": ("cuts-sender", "doubled"),
    "reorder": ("relay-away", "reordered"),
    "alter": ("talk", "altered"),
    "untold": ("talk", ""),
    "tell-twice": ("talk", "told twice"),
    "come-back": ("replaced", ""),
}
# What the reference driver does right.
GOOD = (
    "talk",
    "cuts-sender",
    "cuts-recipient",
    "cuts-register",
    "relay-killed",
    "relay-restarted",
    "replaced",
    "overtaken",
    "sender-killed",
    "recipient-killed",
    "both-killed",
    "handler-fails",
    "handler-holds",
    "rotate-key-cuts",
    "queue-full",
    "status-offline",
)
# Some of the scenarios above wait in vain when they find a fault.
PATIENCE_WITH_FAULT = 8.0
PATIENCE = 90.0
JOBS = 3


def run(jobs: list[Job], fault: str, patience: float) -> list[Result]:
    """Runs jobs with the reference driver."""
    binary = os.environ.get("SEALPOST_BIN")
    if binary is None:
        raise unittest.SkipTest("needs a relay: SEALPOST_BIN")
    # A process of a test must find the package wherever the test was started.
    package = Path(__file__).resolve().parents[2]
    command = f"env PYTHONPATH={package} {sys.executable} -m conformance.tests.fake_driver {fault}"
    setup = Setup((command,), Path(binary).resolve(), seed=7, stride=16, patience=patience)
    return asyncio.run(run_all(jobs, setup, JOBS, None, lambda _: None))


def scenario_job(name: str) -> Job:
    """One fixed scenario."""
    return Job(name, ALL[name].settings, ALL[name].run)


class KitTest(unittest.TestCase):
    """All of these start processes and take some seconds."""

    def test_it_finds_each_fault(self) -> None:
        self.assertEqual(set(FINDS), set(FAULTS))
        for fault, (name, kind) in FINDS.items():
            with self.subTest(fault=fault):
                (result,) = run([scenario_job(name)], fault, PATIENCE_WITH_FAULT)
                self.assertNotEqual(result.failure, "")
                if kind:
                    self.assertIn(kind, result.kinds, result.failure)

    def test_it_finds_nothing_where_nothing_is_wrong(self) -> None:
        for result in run([scenario_job(name) for name in GOOD], "none", PATIENCE):
            with self.subTest(scenario=result.name):
                self.assertEqual(result.failure, "", result.log)

    def test_random_runs_are_good_with_a_good_driver(self) -> None:
        for result in run([random_runs.job(seed) for seed in range(6)], "none", PATIENCE):
            with self.subTest(run=result.name):
                self.assertEqual(result.failure, "", result.log)

    def test_random_runs_find_faults(self) -> None:
        for fault in ("lose", "forget-ids", "new-ids", "reorder"):
            with self.subTest(fault=fault):
                results = run([random_runs.job(seed) for seed in range(3)], fault, PATIENCE_WITH_FAULT)
                self.assertTrue(any(result.failure for result in results))


if __name__ == "__main__":
    unittest.main()
