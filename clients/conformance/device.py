"""One device of a run: its storage, its proxy, its driver, and what is known of it from the events."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from .bell import Bell
from .driver import Driver, Event
from .failure import Failure
from .journal import Journal
from .ledger import OK, STAGES, Ledger
from .proxy import Proxy


@dataclass(frozen=True)
class Waits:
    """The waits that the client is told to use; the back-off is the scale of all others."""

    base: int = 20
    longest: int = 500
    ping: int = 2_000
    timeout: int = 2_000


@dataclass
class Profile:
    """How the driver of a device is started and connected."""

    command: str
    storage: Path
    waits: Waits = field(default_factory=Waits)
    access_token: str | None = None
    environment: dict[str, str] = field(default_factory=dict)


class Device:
    """A device; its process may be killed and started again."""

    _refs = itertools.count(1)

    def __init__(self, name: str, profile: Profile, proxy: Proxy, ledger: Ledger, journal: Journal, bell: Bell) -> None:
        self.name = name
        self.profile = profile
        self.proxy = proxy
        self.ids: list[str] = []
        self.state = ""
        self.reason = ""
        self.states: list[str] = []
        self.unsent = 0
        self.registrations = 0
        self.resumptions = 0
        self.identities_lost = 0
        self.authenticated: set[int] = set()
        self.trusted_by_itself: list[str] = []
        self.rotations: list[tuple[str, str, str]] = []
        self.handed_over: list[str] = []
        self.events: list[Event] = []
        # What an application may do whose connection was replaced by an earlier one of its own that came late.
        self.reconnects_when_replaced = False
        self._ledger = ledger
        self._journal = journal
        self._bell = bell
        self._driver: Driver | None = None
        self._registered_in_this_process = False
        profile.storage.mkdir(parents=True, exist_ok=True)

    # What is known of it.

    @property
    def id(self) -> str:
        """Its present id."""
        if not self.ids:
            raise Failure(f"{self.name} has not been registered yet")
        return self.ids[-1]

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self._driver is not None

    def failure(self, ref: int, stage: str) -> Event | None:
        """What was told of a stage that failed."""
        for event in self.events:
            if event.kind == "failed" and event.number("ref") == ref and event.text("stage") == stage:
                return event
        return None

    def outcome(self, ref: int, stage: str) -> str | None:
        """`ok`, or the error of a stage; nothing while it is open."""
        booking = self._ledger.bookings[ref]
        return booking.told.get(stage)

    # What can be done with it.

    async def start(self) -> None:
        """Starts the process and lets it connect; does not wait for the relay."""
        self._driver = Driver(self.name, self._journal, self._bell, self._on_event)
        await self._driver.start(self.profile.command, self.profile.environment)
        waits = self.profile.waits
        self._driver.command(
            "connect",
            url=self.proxy.url,
            storage=str(self.profile.storage),
            access_token=self.profile.access_token,
            backoff={"base": waits.base, "max": waits.longest},
            watchdog={"ping": waits.ping, "timeout": waits.timeout},
        )

    async def online(self) -> None:
        """Waits until it is online."""
        await self._bell.until(lambda: self.state == "online" and bool(self.ids), f"{self.name} comes online")

    async def kill(self) -> None:
        """SIGKILL."""
        driver = self._must_run()
        await driver.kill()
        self._forget_process(killed=True)

    async def finish(self) -> None:
        """The process ends in an orderly way."""
        driver = self._must_run()
        await driver.finish()
        self._forget_process(killed=False)

    def command(self, name: str, **fields: object) -> None:
        """Gives the driver a command that has no `ref`."""
        self._must_run().command(name, **fields)

    def send(self, to: Device | str, ttl: int | None = None, size: int = 0, recipient: str | None = None) -> int:
        """Sends a message, and writes it into the books; answers its `ref`. `to` may be an id that `recipient` had before."""
        ref = next(self._refs)
        data = f"{ref:06}:".ljust(size, "x")
        to_id, name = (to.id, to.name) if isinstance(to, Device) else (to, recipient or "nobody")
        self._ledger.sent(ref, self.name, name, data, ttl)
        self._must_run().command("send", ref=ref, to=to_id, data=data, ttl=ttl)
        return ref

    def rotate_key(self, to: Device, key_id: str | None = None) -> int:
        """Gives a peer a new key; answers the `ref`."""
        ref = next(self._refs)
        package = f"key-package-{ref}"
        self._ledger.sent(ref, self.name, to.name, package, None, "rotation")
        self._must_run().command("rotate_key", ref=ref, to=to.id, package=package, key_id=key_id)
        return ref

    def authenticate(self, to: Device | str) -> int:
        """Begins a mutual authentication; answers the `ref`."""
        ref = next(self._refs)
        self._must_run().command("authenticate", ref=ref, to=to.id if isinstance(to, Device) else to)
        return ref

    # What its events say.

    def _on_event(self, event: Event) -> None:
        self.events.append(event)
        reader = getattr(self, f"_on_{event.kind}", None)
        if reader is None:
            raise ValueError(f"there is no event {event.kind!r}")
        reader(event)

    def _on_state(self, event: Event) -> None:
        self.state = event.text("state")
        if self.state not in ("connecting", "online", "offline", "replaced", "closed"):
            raise ValueError(f"there is no state {self.state!r}")
        self.reason = event.optional_text("reason") or ""
        self.states.append(self.state)
        if self.state == "replaced" and self.reconnects_when_replaced:
            self.command("reconnect")

    def _on_registered(self, event: Event) -> None:
        device_id = event.text("device_id")
        if device_id not in self.ids:
            self.ids.append(device_id)
        self.registrations += 1
        self._registered_in_this_process = True
        self.resumptions += 1 if event.fields.get("resumed") is True else 0
        self._ledger.registered(self.name, device_id)

    def _on_accepted(self, event: Event) -> None:
        self._ledger.told(event.number("ref"), "accepted")

    def _on_delivered(self, event: Event) -> None:
        self._ledger.told(event.number("ref"), "delivered")

    def _on_processed(self, event: Event) -> None:
        self._ledger.told(event.number("ref"), "processed")

    def _on_rotated(self, event: Event) -> None:
        self._ledger.told(event.number("ref"), "rotated")

    def _on_failed(self, event: Event) -> None:
        stage, error = event.text("stage"), event.text("error")
        if error not in ("expired", "refused", "gave_up"):
            raise ValueError(f"there is no error {error!r}")
        event.text("reason")
        code = event.optional_number("code")
        # Only a refusal has to say its code.
        outcome = f"{error} {code}" if error == "refused" else error
        if event.optional_number("ref") is None:
            # A send of an earlier process.
            return
        if stage in (*STAGES, "rotate_key"):
            self._ledger.told(event.number("ref"), stage, outcome)
        elif stage != "authenticate":
            raise ValueError(f"there is no stage {stage!r}")

    def _on_message(self, event: Event) -> None:
        self.handed_over.append(event.text("data"))
        self._ledger.begun(self.name, event.text("from"), event.text("id"), event.text("data"))

    def _on_handled(self, event: Event) -> None:
        self._ledger.handled(self.name, event.text("from"), event.text("id"))

    def _on_key_rotation(self, event: Event) -> None:
        sender, key_id, package = event.text("from"), str(event.fields.get("key_id")), event.text("package")
        self.rotations.append((sender, key_id, package))
        self._ledger.begun(self.name, sender, f"key:{key_id}", package)
        self._ledger.handled(self.name, sender, f"key:{key_id}")

    def _on_authenticated(self, event: Event) -> None:
        ref = event.optional_number("ref")
        if ref is None:
            self.trusted_by_itself.append(event.text("from"))
        else:
            self.authenticated.add(ref)

    def _on_unsent(self, event: Event) -> None:
        before, self.unsent = self.unsent, event.number("count")
        # Before it is registered, a process also counts what an earlier one has left.
        if self.unsent > before and self._registered_in_this_process:
            self._ledger.stored(self.name, self.unsent - before)

    def _on_identity_lost(self, _event: Event) -> None:
        self.identities_lost += 1

    def _on_handler_error(self, _event: Event) -> None:
        self._ledger.handler_failed(self.name)

    def _on_receipt(self, _event: Event) -> None:
        """What became of a send of an earlier process; the events list keeps it."""

    def _on_expired(self, _event: Event) -> None:
        """A send of an earlier process has expired; the events list keeps it."""

    def _must_run(self) -> Driver:
        if self._driver is None:
            raise RuntimeError(f"{self.name}: its process does not run")
        return self._driver

    def _forget_process(self, killed: bool) -> None:
        self._driver = None
        self._registered_in_this_process = False
        self.state = ""
        self.unsent = 0
        self._ledger.ended_process(self.name, killed)


__all__ = ["OK", "Device", "Profile", "Waits"]
