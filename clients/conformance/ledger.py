"""The books of one run: every send, what its sender was told, and what the application of its recipient was handed.

A send is known by its data, which the kit makes unique; so a message that a client sends a second time under a second id is
found, too. Devices are known by their names, for their ids may change.
"""

from __future__ import annotations

from dataclasses import dataclass, field

STAGES = ("accepted", "delivered", "processed")
OK = "ok"


@dataclass(frozen=True)
class Fault:
    """One thing that must not be."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass
class Handover:
    """One run of the handler of a recipient."""

    recipient: str
    life: int
    position: int
    sender_id: str
    message_id: str
    ended: bool = False


@dataclass
class Booking:
    """One send."""

    ref: int
    sender: str
    recipient: str
    data: str
    ttl: int | None
    kind: str
    # Which process of the sender it is of.
    life: int
    told: dict[str, str] = field(default_factory=dict)
    told_twice: list[str] = field(default_factory=list)
    handovers: list[Handover] = field(default_factory=list)
    # Whether the client is known to have stored it.
    stored: bool = False
    # Whether the process that sent it has ended before the send had: its handle is gone.
    orphan: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.ref} from {self.sender} to {self.recipient} (told: {self.told or 'nothing'})"

    @property
    def failed(self) -> bool:
        """Whether its sender was told that it failed."""
        return any(outcome != OK for outcome in self.told.values())

    @property
    def ended(self) -> bool:
        """Whether its sender knows how it ended."""
        if self.kind == "rotation":
            return bool(self.told)
        return self.failed or all(stage in self.told for stage in STAGES)

    @property
    def handled(self) -> bool:
        """Whether a handler of its recipient ended well."""
        return any(handover.ended for handover in self.handovers)

    @property
    def must_arrive(self) -> bool:
        """Whether it is lost if it does not arrive, as far as is known by now."""
        if self.failed or self.ttl == 0:
            return False
        if self.told.get("processed") == OK or self.told.get("rotated") == OK:
            return True
        if self.orphan:
            # What has a ttl may have expired, and nobody is left who could be told.
            return self.ttl is None and (self.stored or "accepted" in self.told)
        return self.ttl is None


class Ledger:
    """All sends of a run."""

    def __init__(self) -> None:
        self.bookings: dict[int, Booking] = {}
        self._by_data: dict[str, Booking] = {}
        self._names: dict[str, str] = {}
        self._lives: dict[str, int] = {}
        self._killed: set[tuple[str, int]] = set()
        self._handler_errors: dict[tuple[str, int], int] = {}
        self._begun: list[tuple[Booking, Handover]] = []
        self._open: dict[tuple[str, str, str], Handover] = {}
        self._strange: list[Fault] = []

    # What the kit writes into the books.

    def registered(self, device: str, device_id: str) -> None:
        """The device has this id; it may have had others before."""
        self._names[device_id] = device

    def sent(self, ref: int, sender: str, recipient: str, data: str, ttl: int | None, kind: str = "message") -> None:
        """The application of the sender has sent something."""
        booking = Booking(ref, sender, recipient, data, ttl, kind, self._life(sender))
        self.bookings[ref] = booking
        self._by_data[data] = booking

    def told(self, ref: int, stage: str, outcome: str = OK) -> None:
        """The sender was told what became of a stage of the send."""
        booking = self.bookings.get(ref)
        if booking is None:
            self._strange.append(Fault("strange", f"{stage} of a send {ref} that never was"))
            return
        if stage in booking.told:
            booking.told_twice.append(stage)
        booking.told.setdefault(stage, outcome)

    def stored(self, sender: str, count: int) -> None:
        """The client of the sender has stored this number more of the messages that its present process has sent.

        It stores them in the order of the sends; so if some never were stored, too few count as stored, and never too many.
        """
        for booking in self.bookings.values():
            if count == 0:
                return
            of_this_process = booking.sender == sender and booking.life == self._life(sender)
            if of_this_process and booking.kind == "message" and not booking.stored:
                booking.stored = True
                count -= 1

    def begun(self, recipient: str, sender_id: str, message_id: str, data: str) -> None:
        """A handler of the recipient has begun."""
        booking = self._by_data.get(data)
        if booking is None:
            self._strange.append(Fault("altered", f"{recipient} was handed what nobody sent: {data[:80]!r}"))
            return
        handover = Handover(recipient, self._life(recipient), len(self._begun), sender_id, message_id)
        booking.handovers.append(handover)
        self._begun.append((booking, handover))
        self._open[recipient, sender_id, message_id] = handover

    def handled(self, recipient: str, sender_id: str, message_id: str) -> None:
        """A handler of the recipient has ended well."""
        handover = self._open.pop((recipient, sender_id, message_id), None)
        if handover is None:
            self._strange.append(Fault("strange", f"{recipient} handled {message_id}, which was not begun or has ended"))
            return
        handover.ended = True

    def handler_failed(self, recipient: str) -> None:
        """A handler of the recipient has failed."""
        key = (recipient, self._life(recipient))
        self._handler_errors[key] = self._handler_errors.get(key, 0) + 1

    def ended_process(self, device: str, killed: bool) -> None:
        """The process of the device has ended; what comes from now on is of its next one."""
        life = self._life(device)
        if killed:
            self._killed.add((device, life))
        self._lives[device] = life + 1
        for booking in self.bookings.values():
            if booking.sender == device and not booking.ended:
                booking.orphan = True
        self._open = {key: handover for key, handover in self._open.items() if key[0] != device}

    # What the kit reads from them.

    def settled(self) -> bool:
        """Whether nothing is under way any more."""
        return all(
            (booking.ended or booking.orphan) and (booking.handled or not booking.must_arrive) for booking in self.bookings.values()
        )

    def unsettled(self) -> list[Booking]:
        """What is still under way."""
        return [
            booking
            for booking in self.bookings.values()
            if not ((booking.ended or booking.orphan) and (booking.handled or not booking.must_arrive))
        ]

    def check(self) -> list[Fault]:
        """All faults, once the run has settled or was given up."""
        faults = list(self._strange)
        for booking in self.bookings.values():
            faults += self._lost(booking) + self._untold(booking) + self._misdirected(booking)
        return faults + self._doubled() + self._begun_again() + self._reordered()

    def _life(self, device: str) -> int:
        return self._lives.get(device, 0)

    def _lost(self, booking: Booking) -> list[Fault]:
        return [Fault("lost", str(booking))] if booking.must_arrive and not booking.handled else []

    def _untold(self, booking: Booking) -> list[Fault]:
        faults = [Fault("told twice", f"{stage} of {booking}") for stage in booking.told_twice]
        if not booking.ended and not booking.orphan:
            faults.append(Fault("untold", str(booking)))
        order = [booking.told.get(stage) for stage in STAGES]
        failed_before = False
        for stage, outcome in zip(STAGES, order):
            if outcome == OK and failed_before:
                faults.append(Fault("contradicted", f"{stage} after an earlier stage had failed: {booking}"))
            failed_before = failed_before or (outcome is not None and outcome != OK)
        if booking.handled and any(outcome.startswith("refused") for outcome in booking.told.values()):
            faults.append(Fault("contradicted", f"it was handled all the same: {booking}"))
        return faults

    def _misdirected(self, booking: Booking) -> list[Fault]:
        return [
            Fault("misdirected", f"{handover.recipient} got it from {self._names.get(handover.sender_id)}: {booking}")
            for handover in booking.handovers
            if handover.recipient != booking.recipient or self._names.get(handover.sender_id) != booking.sender
        ]

    def _doubled(self) -> list[Fault]:
        """A message whose handler begins once more after it has ended well.

        One case is no fault: the recipient was killed between the end of the handler and the write of the id. That can only
        have been the last message of its sender in that process, since the next one begins after the write.
        """
        last: dict[tuple[str, str, int], Booking] = {}
        for booking, handover in self._begun:
            last[handover.recipient, booking.sender, handover.life] = booking
        faults = []
        for booking in self.bookings.values():
            first: Handover | None = None
            for handover in booking.handovers:
                if first is not None:
                    killed = (first.recipient, first.life) in self._killed and handover.life > first.life
                    if not (killed and last[first.recipient, booking.sender, first.life] is booking):
                        faults.append(Fault("doubled", str(booking)))
                if handover.ended:
                    first = handover
        return faults

    def _begun_again(self) -> list[Fault]:
        """Messages that were begun again in one process although no handler had failed."""
        again: dict[tuple[str, int], list[Booking]] = {}
        seen: set[tuple[str, int, int]] = set()
        for booking, handover in self._begun:
            key = (handover.recipient, handover.life, booking.ref)
            if key in seen:
                again.setdefault((handover.recipient, handover.life), []).append(booking)
            seen.add(key)
        return [
            Fault("begun again", f"without a failed handler before: {', '.join(map(str, bookings))}")
            for key, bookings in again.items()
            if len(bookings) > self._handler_errors.get(key, 0)
        ]

    def _reordered(self) -> list[Fault]:
        """Messages of a pair that were first handed over in another order than that of the sends."""
        faults = []
        newest: dict[tuple[str, str], Booking] = {}
        seen: set[int] = set()
        for booking, _ in self._begun:
            if booking.ref in seen or booking.kind != "message":
                continue
            seen.add(booking.ref)
            pair = (booking.sender, booking.recipient)
            before = newest.get(pair)
            if before is not None and before.ref > booking.ref:
                faults.append(Fault("reordered", f"{booking} came after {before}"))
            else:
                newest[pair] = booking
        return faults
