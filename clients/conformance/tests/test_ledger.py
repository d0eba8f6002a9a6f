"""The ledger finds what it is there to find, and does not cry wolf."""

from __future__ import annotations

import unittest

from ..ledger import STAGES, Ledger


class Books(unittest.TestCase):
    """Alice (id a) sends to Bob (id b)."""

    def setUp(self) -> None:
        self.ledger = Ledger()
        self.ledger.registered("alice", "a")
        self.ledger.registered("bob", "b")

    def send(self, ref: int, ttl: int | None = None) -> None:
        """Alice sends message `ref`."""
        self.ledger.sent(ref, "alice", "bob", f"data {ref}", ttl)

    def begin(self, ref: int, message_id: str | None = None) -> None:
        """Bob's handler begins."""
        self.ledger.begun("bob", "a", message_id or f"id {ref}", f"data {ref}")

    def handle(self, ref: int, message_id: str | None = None) -> None:
        """Bob's handler begins and ends well."""
        self.begin(ref, message_id)
        self.ledger.handled("bob", "a", message_id or f"id {ref}")

    def tell(self, ref: int, *stages: str) -> None:
        """Alice is told of stages."""
        for stage in stages:
            self.ledger.told(ref, stage)

    def exchange(self, ref: int) -> None:
        """A message that goes well."""
        self.send(ref)
        self.tell(ref, "accepted")
        self.handle(ref)
        self.tell(ref, "delivered", "processed")

    def kinds(self) -> list[str]:
        """The faults that the ledger finds."""
        return [fault.kind for fault in self.ledger.check()]


class Good(Books):
    """Runs without a fault."""

    def test_messages_that_go_well(self) -> None:
        for ref in (1, 2, 3):
            self.exchange(ref)
        self.assertTrue(self.ledger.settled())
        self.assertEqual(self.kinds(), [])

    def test_a_failure_that_is_told(self) -> None:
        self.send(1)
        for stage in STAGES:
            self.ledger.told(1, stage, "expired 410")
        self.assertTrue(self.ledger.settled())
        self.assertEqual(self.kinds(), [])

    def test_what_has_expired_may_have_arrived(self) -> None:
        self.send(1, ttl=1)
        self.tell(1, "accepted")
        self.handle(1)
        self.ledger.told(1, "processed", "expired 410")
        self.assertEqual(self.kinds(), [])

    def test_a_handler_that_failed_begins_again(self) -> None:
        self.send(1)
        self.begin(1)
        self.ledger.handler_failed("bob")
        self.handle(1)
        self.tell(1, *STAGES)
        self.assertEqual(self.kinds(), [])

    def test_a_killed_recipient_may_see_its_last_message_again(self) -> None:
        self.exchange(1)
        self.send(2)
        self.handle(2)
        self.ledger.ended_process("bob", killed=True)
        self.handle(2)
        self.tell(2, *STAGES)
        self.assertEqual(self.kinds(), [])

    def test_a_killed_recipient_begins_again_what_it_had_begun(self) -> None:
        self.send(1)
        self.begin(1)
        self.ledger.ended_process("bob", killed=True)
        self.handle(1)
        self.tell(1, *STAGES)
        self.assertEqual(self.kinds(), [])

    def test_what_a_killed_sender_had_not_stored_may_be_missing(self) -> None:
        self.send(1)
        self.ledger.ended_process("alice", killed=True)
        self.assertTrue(self.ledger.settled())
        self.assertEqual(self.kinds(), [])

    def test_a_message_may_come_from_an_earlier_id_of_its_sender(self) -> None:
        self.ledger.registered("alice", "a2")
        self.exchange(1)
        self.assertEqual(self.kinds(), [])


class Bad(Books):
    """Each fault by itself."""

    def test_lost(self) -> None:
        self.send(1)
        self.tell(1, *STAGES)
        self.assertFalse(self.ledger.settled())
        self.assertEqual(self.kinds(), ["lost"])

    def test_lost_although_begun(self) -> None:
        self.send(1)
        self.begin(1)
        self.tell(1, *STAGES)
        self.assertEqual(self.kinds(), ["lost"])

    def test_lost_by_a_sender_that_was_killed(self) -> None:
        self.send(1)
        self.send(2)
        self.ledger.stored("alice", 1)
        self.ledger.ended_process("alice", killed=True)
        self.assertFalse(self.ledger.settled())
        self.assertEqual([str(fault).split(" from")[0] for fault in self.ledger.check()], ["lost: message 1"])

    def test_accepted_and_lost_after_the_sender_was_killed(self) -> None:
        self.send(1)
        self.tell(1, "accepted")
        self.ledger.ended_process("alice", killed=True)
        self.assertEqual(self.kinds(), ["lost"])

    def test_doubled(self) -> None:
        self.exchange(1)
        self.exchange(2)
        self.handle(1)
        self.assertIn("doubled", self.kinds())

    def test_doubled_under_another_id(self) -> None:
        self.exchange(1)
        self.handle(1, "another id")
        self.assertIn("doubled", self.kinds())

    def test_doubled_after_an_orderly_end(self) -> None:
        self.exchange(1)
        self.ledger.ended_process("bob", killed=False)
        self.handle(1)
        self.assertEqual(self.kinds(), ["doubled"])

    def test_doubled_after_a_kill_although_the_next_message_had_begun(self) -> None:
        self.exchange(1)
        self.exchange(2)
        self.ledger.ended_process("bob", killed=True)
        self.handle(1)
        self.assertEqual(self.kinds(), ["doubled"])

    def test_begun_again_without_a_failure(self) -> None:
        self.send(1)
        self.begin(1)
        self.handle(1)
        self.tell(1, *STAGES)
        self.assertEqual(self.kinds(), ["begun again"])

    def test_reordered(self) -> None:
        self.send(1)
        self.send(2)
        self.handle(2)
        self.handle(1)
        self.tell(1, *STAGES)
        self.tell(2, *STAGES)
        self.assertEqual(self.kinds(), ["reordered"])

    def test_untold(self) -> None:
        self.send(1)
        self.tell(1, "accepted", "delivered")
        self.handle(1)
        self.assertFalse(self.ledger.settled())
        self.assertEqual(self.kinds(), ["untold"])

    def test_told_twice(self) -> None:
        self.exchange(1)
        self.tell(1, "accepted")
        self.assertEqual(self.kinds(), ["told twice"])

    def test_told_that_it_failed_and_that_it_went_well(self) -> None:
        self.exchange(1)
        self.send(2)
        self.handle(2)
        self.ledger.told(2, "accepted", "expired")
        self.tell(2, "processed")
        self.assertEqual(self.kinds(), ["contradicted"])

    def test_refused_and_handled(self) -> None:
        self.send(1)
        self.handle(1)
        self.ledger.told(1, "accepted", "refused 404")
        self.assertEqual(self.kinds(), ["contradicted"])

    def test_altered(self) -> None:
        self.exchange(1)
        self.ledger.begun("bob", "a", "id 7", "data that nobody sent")
        self.assertEqual(self.kinds(), ["altered"])

    def test_misdirected(self) -> None:
        self.send(1)
        self.ledger.begun("carol", "a", "id 1", "data 1")
        self.ledger.handled("carol", "a", "id 1")
        self.tell(1, *STAGES)
        self.assertEqual(self.kinds(), ["misdirected"])

    def test_under_a_wrong_sender(self) -> None:
        self.send(1)
        self.ledger.begun("bob", "b", "id 1", "data 1")
        self.ledger.handled("bob", "b", "id 1")
        self.tell(1, *STAGES)
        self.assertEqual(self.kinds(), ["misdirected"])

    def test_an_answer_to_nothing(self) -> None:
        self.tell(9, "accepted")
        self.assertEqual(self.kinds(), ["strange"])


if __name__ == "__main__":
    unittest.main()
