"""All that one scenario or random run has: a relay, devices behind proxies, the books and the log."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .bell import Bell
from .device import OK, Device, Profile, Waits
from .failure import Failure
from .journal import Journal
from .ledger import Ledger
from .link import Cut
from .proxy import Proxy
from .relay import Relay, Settings


@dataclass(frozen=True)
class Setup:
    """What the command line says."""

    clients: tuple[str, ...]
    relay: Path
    seed: int
    stride: int
    patience: float


class World:
    """Made for one run, and thrown away after it."""

    def __init__(self, setup: Setup, settings: Settings) -> None:
        self.setup = setup
        self.journal = Journal()
        self.bell = Bell(setup.patience)
        self.ledger = Ledger()
        self.devices: list[Device] = []
        self._directory = Path(tempfile.mkdtemp(prefix="sealpost-conformance-"))
        self.relay = Relay(setup.relay, self._directory / "relay", settings, self.journal)

    # Devices.

    def new_device(
        self,
        name: str,
        waits: Waits | None = None,
        access_token: str | None = None,
        environment: dict[str, str] | None = None,
        client: int | None = None,
        storage_of: Device | None = None,
    ) -> Device:
        """A device that is not started yet; the devices take turns with the clients."""
        number = len(self.devices) if client is None else client
        command = self.setup.clients[number % len(self.setup.clients)]
        storage = self._directory / f"{len(self.devices)}-{name}"
        if storage_of is not None:
            shutil.copytree(storage_of.profile.storage, storage)
        proxy = Proxy(name, self.relay, self.journal, self.bell)
        proxy.allow()
        profile = Profile(command, storage, waits or Waits(), access_token, environment or {})
        device = Device(name, profile, proxy, self.ledger, self.journal, self.bell)
        self.devices.append(device)
        return device

    async def device(self, name: str, waits: Waits | None = None, access_token: str | None = None) -> Device:
        """A device that is started and online."""
        device = self.new_device(name, waits, access_token)
        await device.start()
        await device.online()
        return device

    async def pair(self, waits: Waits | None = None) -> tuple[Device, Device]:
        """A relay that runs, and two devices that are online and have written to each other."""
        await self.relay.start()
        alice = await self.device("alice", waits)
        bob = await self.device("bob", waits)
        alice.send(bob)
        bob.send(alice)
        await self.settled()
        return alice, bob

    # Waiting.

    async def settled(self) -> None:
        """Waits until every send has ended, its sender knows how, and what must arrive has arrived."""
        await self.bell.until(self.ledger.settled, "all sends end")

    async def told(self, device: Device, ref: int, stage: str, outcome: str | None = None) -> None:
        """Waits until the sender is told of a stage; fails if it is told something else than `outcome`."""
        await self.bell.until(
            lambda: device.outcome(ref, stage) is not None,
            f"{device.name} is told whether {ref} was {stage}",
        )
        got = device.outcome(ref, stage)
        if outcome is not None and got != outcome:
            raise Failure(f"{device.name} was told {got!r} of {ref} ({stage}) instead of {outcome!r}")

    async def handed_over(self, device: Device, count: int) -> None:
        """Waits until handlers of the device have begun this number of times in all."""
        await self.bell.until(
            lambda: len(device.handed_over) >= count,
            f"{device.name} is handed {count} messages in all",
        )

    async def connects_again(self, device: Device, before: int) -> None:
        """Waits until the proxy has accepted more connections of the device than `before`."""
        await self.bell.until(lambda: device.proxy.accepted > before, f"{device.name} connects again")

    async def gone(self, device: Device, sender: Device) -> None:
        """Waits until the relay has noticed that the connection of a device has ended: ttl 0 finds nobody any more.

        Until then it may hand things to the dead connection, and an authentication is handed over only once.
        """
        while True:
            ref = sender.send(device, ttl=0)
            await self.told(sender, ref, "accepted")
            if sender.outcome(ref, "accepted") != OK:
                return

    async def nothing_unsent(self, device: Device) -> None:
        """Waits until the outbox is empty."""
        await self.bell.until(lambda: device.unsent == 0, f"nothing of {device.name} is unsent")

    async def verified(self, device: Device, ref: int) -> None:
        """Waits until an authentication has ended well; fails if it ends otherwise."""
        await self.bell.until(
            lambda: ref in device.authenticated or device.failure(ref, "authenticate") is not None,
            f"the authentication {ref} of {device.name} ends",
        )
        failure = device.failure(ref, "authenticate")
        self.expect(failure is None, f"{device.name} verifies the other side: {failure}")

    async def trusts(self, device: Device, other: Device, before: int = 0) -> None:
        """Waits until the answering side has said more often than `before` that it trusts the other."""
        await self.bell.until(
            lambda: device.trusted_by_itself.count(other.id) > before,
            f"{device.name} learns that it trusts {other.name}",
        )

    async def fenced(self) -> None:
        """Each device reconnects and writes to each other one, so that what was to come a second time has come.

        The relay hands over what is unconfirmed before what is new, so a double arrives before the last message of the pair.
        """
        running = [device for device in self.devices if device.running and device.state != "closed"]
        for device in running:
            device.proxy.cut(Cut.RESET)
        for sender in running:
            for recipient in running:
                if sender is not recipient:
                    sender.send(recipient)
        await self.settled()

    def check(self) -> None:
        """Fails if the books are not in order."""
        faults = self.ledger.check()
        if faults:
            raise Failure("\n".join(str(fault) for fault in faults[:20]))

    def expect(self, condition: bool, what: str) -> None:
        """Fails with a sentence."""
        if not condition:
            raise Failure(what)

    async def close(self) -> None:
        """Ends all processes and removes all files."""
        for device in self.devices:
            if device.running:
                await device.kill()
        await asyncio.gather(*(device.proxy.close() for device in self.devices))
        await self.relay.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
