use super::*;

/// A resumable device with receipts whose message has been processed: its receipt is on its way, and stored.
fn with_a_receipt() -> (Relay, Who, Who) {
    let mut relay = relay();
    let (alice, bob) = (relay.resumable_with_receipts(1), relay.resumable(2));
    relay.is_processed(alice, "hi", bob);
    assert_eq!(relay.disk().stored, 1);
    (relay, alice, bob)
}

impl Relay {
    /// A message is sent and processed; its sender receives the receipt.
    fn is_processed(&mut self, from: Who, name: &str, to: Who) {
        self.sends(from, name, to);
        self.confirms(to, name);
        assert!(self.received(from).contains(&format!("ack {name} processed")), "{name}");
    }

    fn proves(&mut self, who: Who) {
        let through = self.noticed[&self.conns[&who.0]];
        self.send(who, Command::NoticesReceived(through));
    }

    fn comes_again(&mut self, who: Who) -> bool {
        self.resumes_with_receipts(who);
        self.received(who).contains(&"ack hi processed".to_owned())
    }
}

#[test]
fn a_notice_comes_again_on_the_next_connection_until_its_device_proves_that_it_has_the_notice() {
    let (mut relay, alice, _) = with_a_receipt();
    relay.takes(alice);
    assert!(relay.comes_again(alice), "the kernel took it, and the connection was dead");
    relay.takes(alice);
    assert_eq!(relay.received(alice), NOTHING, "twice on one connection");
    relay.proves(alice);
    assert_eq!(relay.disk().stored, 0);
    assert!(!relay.comes_again(alice));
}

#[test]
fn a_proof_does_not_reach_further_than_what_was_delivered() {
    let (mut relay, alice, bob) = with_a_receipt();
    relay.status(alice, Presence::Offline);
    relay.sends(alice, "held", bob);
    relay.confirms(bob, "held");
    relay.send(alice, Command::NoticesReceived(NoticeNumber::MAX));
    assert_eq!(relay.disk().stored, 1);
    relay.received(alice);
    relay.status(alice, Presence::Online);
    assert_eq!(relay.received(alice), ["ack held processed"]);
}

#[test]
fn the_ack_of_a_message_that_was_delivered_later_proves_a_notice() {
    let (mut relay, alice, bob) = with_a_receipt();
    relay.sends(bob, "answer", alice);
    relay.confirms(alice, "answer");
    assert!(!relay.comes_again(alice));
}

#[test]
fn the_ack_of_a_message_that_was_delivered_before_proves_nothing() {
    let mut relay = relay();
    let (alice, bob) = (relay.resumable_with_receipts(1), relay.resumable(2));
    relay.sends(bob, "before", alice);
    relay.is_processed(alice, "hi", bob);
    relay.confirms(alice, "before");
    assert!(relay.comes_again(alice));
}

#[test]
fn the_ack_of_a_message_of_an_earlier_connection_proves_nothing() {
    let mut relay = relay();
    relay.settings(|settings| settings.delivery.window = 1);
    let (alice, bob) = (relay.resumable_with_receipts(1), relay.resumable(2));
    for name in ["one", "two"] {
        relay.sends(bob, name, alice);
    }
    relay.confirms(alice, "one");
    relay.leaves(alice);
    relay.resumes_with_receipts(alice);
    relay.status(alice, Presence::Offline);
    relay.leaves(alice);
    relay.resumes_with_receipts(alice);
    relay.is_processed(alice, "hi", bob);
    // It waits for credit on this connection, and was delivered on an earlier one.
    relay.sends(bob, "three", alice);
    relay.confirms(alice, "three");
    assert!(relay.comes_again(alice));
}

#[test]
fn any_frame_proves_what_was_delivered_longer_ago_than_a_dead_connection_stays_open() {
    let (mut relay, alice, _) = with_a_receipt();
    relay.settings(|settings| {
        settings.heartbeat.timeout = Duration::from_secs(75);
        settings.server.tcp_user_timeout = Duration::from_secs(30);
    });
    relay.pass(75);
    relay.send(alice, Command::Alive);
    assert_eq!(relay.disk().stored, 1);
    relay.pass(1);
    relay.send(alice, Command::Alive);
    assert_eq!(relay.disk().stored, 0);
    assert!(!relay.comes_again(alice));
}

#[test]
fn a_plain_device_has_a_notice_when_its_socket_took_it() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain_with_receipts(1), relay.resumable(2));
    relay.is_processed(alice, "hi", bob);
    assert!(relay.counts().queued_bytes > 0);
    relay.takes(alice);
    assert_eq!(relay.counts().queued_bytes, 0);
}

#[test]
fn the_notices_of_a_plain_device_end_with_its_connection() {
    let mut relay = relay();
    let (alice, bob) = (relay.plain_with_receipts(1), relay.resumable(2));
    relay.is_processed(alice, "hi", bob);
    relay.leaves(alice);
    relay.sweeps();
    assert_eq!((relay.counts().queued_bytes, relay.router.next_deadline().is_some()), (0, true));
}

#[test]
fn notices_do_not_wait_behind_messages_that_are_not_confirmed() {
    let mut relay = relay();
    relay.settings(|settings| settings.delivery.window = 2);
    let (alice, bob) = (relay.resumable_with_receipts(1), relay.resumable(2));
    for name in ["a", "b", "c"] {
        relay.sends(bob, name, alice);
    }
    assert_eq!(relay.received(alice), ["a", "b"]);
    for name in ["one", "two", "three"] {
        relay.sends(alice, name, bob);
        relay.confirms(bob, name);
    }
    let answers = relay.received(alice);
    assert!(answers.contains(&"ack two processed".to_owned()), "{answers:?}");
    assert!(!answers.contains(&"ack three processed".to_owned()), "the socket has taken none");
    relay.takes(alice);
    assert_eq!(relay.received(alice), ["ack three processed"]);
}

#[test]
fn a_resume_without_receipts_drops_those_that_wait_and_no_error() {
    let mut relay = relay();
    let (alice, bob, carol) =
        (relay.resumable_with_receipts(1), relay.resumable(2), relay.resumable(3));
    relay.leaves(carol);
    relay.sends_for(alice, "gone", carol, Some(5));
    relay.sends(alice, "hi", bob);
    relay.leaves(alice);
    relay.confirms(bob, "hi");
    relay.pass(5);
    relay.sweeps();
    relay.resumes(alice);
    assert_eq!(relay.received(alice), ["resumed 0", "410 gone"]);
    relay.proves(alice);
    relay.sweeps();
    assert_eq!((relay.disk().stored, relay.counts().queued_bytes), (0, 0));
    assert!(!relay.comes_again(alice));
}

#[test]
fn receipts_go_by_the_connection_there_is_or_was_last() {
    let mut relay = relay();
    let (alice, bob) = (relay.resumable_with_receipts(1), relay.resumable(2));
    for name in ["one", "two"] {
        relay.sends(alice, name, bob);
    }
    relay.resumes(alice);
    relay.received(alice);
    relay.confirms(bob, "one");
    assert_eq!(relay.received(alice), NOTHING);
    relay.leaves(alice);
    relay.confirms(bob, "two");
    relay.resumes_with_receipts(alice);
    assert_eq!(relay.received(alice), ["resumed 0"]);
}

#[test]
fn a_repeat_with_receipts_turns_them_on_for_the_message() {
    let mut relay = relay();
    let (alice, bob) = (relay.resumable(1), relay.resumable(2));
    relay.sends(alice, "hi", bob);
    relay.resumes_with_receipts(alice);
    relay.received(alice);
    relay.sends(alice, "hi", bob);
    assert_eq!(relay.received(alice), ["ack hi queued until 60"]);
    assert_eq!(relay.disk().replaced.len(), 1, "a restart must know");
    relay.sends(alice, "hi", bob);
    assert_eq!(relay.disk().replaced.len(), 1);
    relay.received(alice);
    relay.confirms(bob, "hi");
    assert_eq!(relay.received(alice), ["ack hi processed"]);
}

#[test]
fn the_notice_of_something_stored_leaves_after_the_commit_of_its_end() {
    let mut relay = relay();
    relay.disk().slow = true;
    let (alice, bob, carol) =
        (relay.resumable_with_receipts(1), relay.resumable(2), relay.plain_with_receipts(3));
    for from in [alice, carol] {
        relay.sends(from, "hi", bob);
        relay.sends_for(from, "gone", bob, Some(5));
    }
    let last = relay.disk().last;
    relay.commits(last);
    for from in [alice, carol] {
        relay.received(from);
    }
    relay.confirms(bob, "hi");
    relay.confirms(bob, "hi");
    relay.leaves(bob);
    relay.pass(5);
    relay.sweeps();
    for from in [alice, carol] {
        assert_eq!(relay.received(from), NOTHING);
    }
    let last = relay.disk().last;
    relay.commits(last);
    for from in [alice, carol] {
        assert_eq!(relay.received(from), ["ack hi processed", "410 gone"]);
    }
}

#[test]
fn a_repeat_learns_of_the_processing_only_after_its_commit() {
    let mut relay = relay();
    relay.disk().slow = true;
    let (alice, bob) = (relay.resumable_with_receipts(1), relay.resumable(2));
    relay.sends(alice, "hi", bob);
    relay.confirms(bob, "hi");
    relay.sends(alice, "hi", bob);
    assert_eq!(relay.received(alice), NOTHING);
    let last = relay.disk().last;
    relay.commits(last);
    assert_eq!(relay.received(alice), ["ack hi processed", "ack hi processed"]);
}

#[test]
fn a_notice_of_something_that_was_never_stored_leaves_at_once() {
    let mut relay = relay();
    relay.disk().slow = true;
    let (alice, bob) = (relay.resumable(1), relay.plain(2));
    relay.status(bob, Presence::Offline);
    relay.auth(alice, AuthStep::Request, Some(bob));
    relay.pass(60);
    relay.sweeps();
    assert_eq!(relay.received(alice), ["410"]);
}

#[test]
fn while_the_store_fails_notices_leave_at_once() {
    let mut relay = relay();
    relay.disk().slow = true;
    let (alice, bob) = (relay.resumable_with_receipts(1), relay.resumable(2));
    relay.sends(alice, "hi", bob);
    let last = relay.disk().last;
    relay.commits(last);
    relay.received(alice);
    relay.confirms(bob, "hi");
    assert_eq!(relay.received(alice), NOTHING);
    let last = relay.disk().last;
    relay.router.failed(&mut relay.step, last);
    relay.collect();
    assert_eq!(relay.received(alice), ["ack hi processed"]);
    // The store takes writes again: the notice is put once more, since nothing proves that it has arrived.
    relay.disk().slow = false;
    let before = relay.router.last_put();
    relay.router.recovered(&mut relay.step);
    while relay.router.is_unfinished() {
        relay.router.continue_work(&mut relay.step);
    }
    assert_eq!(relay.router.last_put().0 - before.0, 1);
}

#[test]
fn a_notice_counts_no_more_than_the_message_that_it_reports() {
    let mut relay = relay();
    let (alice, bob) = (relay.resumable(1), relay.resumable(2));
    relay.leaves(bob);
    relay.leaves(alice);
    relay.resumes(alice);
    relay.sends_for(alice, "g", bob, Some(5));
    let of_message = relay.counts().queued_bytes;
    relay.pass(5);
    relay.sweeps();
    assert_eq!(relay.counts().queued_bytes, of_message);
}

#[test]
fn the_ack_of_a_message_for_this_moment_follows_the_commit_of_its_fingerprint() {
    let mut relay = relay();
    relay.disk().slow = true;
    let (alice, bob) = (relay.resumable(1), relay.resumable(2));
    relay.sends_for(alice, "now", bob, Some(0));
    relay.takes(bob);
    assert_eq!((relay.received(alice), relay.disk().fingerprints), (vec![], 1));
    let last = relay.disk().last;
    relay.commits(last);
    assert_eq!(relay.received(alice), ["ack now"]);
    assert_eq!(relay.disk().stored, 0);
}

#[test]
fn a_plain_device_is_acked_at_once_for_a_message_for_this_moment() {
    let mut relay = relay();
    relay.disk().slow = true;
    let (alice, bob) = (relay.plain(1), relay.resumable(2));
    relay.sends_for(alice, "now", bob, Some(0));
    assert_eq!(relay.received(alice), ["ack now"]);
    relay.takes(bob);
    assert_eq!(relay.disk().fingerprints, 0);
}

#[test]
fn many_settled_notices_are_removed_in_slices() {
    let mut relay = relay();
    let number = 2 * STEP_ENTRIES + 1;
    relay.settings(|settings| {
        settings.delivery.window = number;
        settings.queue.messages = 2 * number;
        settings.queue.bytes = 64 * 1024 * 1024;
        settings.queue.total_bytes = 64 * 1024 * 1024;
        settings.queue.sender_share = 1.0;
    });
    let (alice, bob) = (relay.resumable(1), relay.resumable(2));
    relay.leaves(bob);
    for name in 0..number {
        relay.sends_for(alice, &name.to_string(), bob, Some(5));
    }
    relay.pass(5);
    while relay.router.next_deadline().is_some_and(|due| due <= relay.step.now.mono) {
        relay.sweeps();
    }
    assert_eq!(relay.disk().stored, number);
    relay.proves(alice);
    let mut left = vec![relay.disk().stored];
    while relay.router.is_unfinished() {
        relay.router.continue_work(&mut relay.step);
        left.push(relay.disk().stored);
    }
    assert_eq!(left, [STEP_ENTRIES + 1, 1, 0]);
}
