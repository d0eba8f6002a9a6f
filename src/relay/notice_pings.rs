//! Pings that prove which notices have arrived at a resumable device.
//!
//! The answer to a ping can only come from a client that has read everything before the ping. A WebSocket ping carries a mark,
//! which its pong repeats (RFC 6455 §5.5.3). A client whose library does not answer those gets JSON Pings, which it answers in
//! order. (protocol: Notices)

use super::notice_queue::NoticeNumber;

/// Turns without a pong after which a client gets a JSON Ping.
const SILENT_TURNS: u8 = 3;

/// What to send, at most once in a second.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// A WebSocket ping with this mark.
    pub marked: Option<NoticeNumber>,
    pub json: bool,
    /// There is another turn to come.
    pub again: bool,
}

#[derive(Debug, Default)]
pub struct NoticePings {
    /// The newest notice that was sent.
    sent: NoticeNumber,
    /// The newest mark.
    marked: NoticeNumber,
    /// The client has everything through this notice.
    proved: NoticeNumber,
    /// Another turn is to come.
    is_timed: bool,
    /// Turns since the last pong.
    silent: u8,
    /// The notice before the last JSON Ping, and which of the answers to come is the one to this Ping.
    json: Option<(NoticeNumber, u8)>,
}

impl NoticePings {
    /// Returns whether a turn is due now: none is to come.
    pub fn on_sent(&mut self, number: NoticeNumber) -> bool {
        self.sent = number;
        !self.is_timed
    }

    /// Whether a notice was sent of which nothing is known.
    pub fn awaits_proof(&self) -> bool {
        self.sent > self.proved
    }

    /// `unanswered` counts the JSON Pings that the client has not answered.
    pub fn turn(&mut self, unanswered: u8) -> Turn {
        self.is_timed = self.awaits_proof();
        if !self.is_timed {
            return Turn::default();
        }
        let marked = (self.marked < self.sent).then_some(self.sent);
        self.marked = self.sent;
        let json = self.silent >= SILENT_TURNS && self.json.is_none() && unanswered < u8::MAX;
        if json {
            self.json = Some((self.sent, unanswered + 1));
        }
        self.silent = self.silent.saturating_add(1);
        Turn { marked, json, again: true }
    }

    /// A WebSocket pong. Returns what it proves, if a mark of this connection is in it.
    pub fn on_pong(&mut self, payload: &[u8]) -> Option<NoticeNumber> {
        let mark = NoticeNumber::from_be_bytes(payload.try_into().ok()?);
        if mark > self.marked || mark <= self.proved {
            return None;
        }
        self.silent = 0;
        self.prove(mark)
    }

    /// A JSON Pong, the answer to the oldest Ping that is not answered. Returns what it proves.
    pub fn on_json_pong(&mut self) -> Option<NoticeNumber> {
        let (number, answers) = self.json.take()?;
        match answers.checked_sub(1) {
            Some(0) | None => self.prove(number),
            Some(left) => {
                self.json = Some((number, left));
                None
            }
        }
    }

    fn prove(&mut self, through: NoticeNumber) -> Option<NoticeNumber> {
        self.proved = self.proved.max(through);
        Some(self.proved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pings(sent: NoticeNumber) -> NoticePings {
        let mut pings = NoticePings::default();
        assert!(pings.on_sent(sent));
        pings
    }

    fn marked(mark: NoticeNumber) -> Turn {
        Turn { marked: Some(mark), json: false, again: true }
    }

    const NOTHING_NEW: Turn = Turn { marked: None, json: false, again: true };

    #[test]
    fn each_notice_is_behind_one_mark_and_a_pong_ends_the_turns() {
        let mut pings = pings(3);
        assert_eq!(pings.turn(0), marked(3));
        assert_eq!(pings.turn(0), NOTHING_NEW);
        assert!(!pings.on_sent(5), "a turn is to come");
        assert_eq!(pings.turn(0), marked(5));
        assert_eq!(pings.on_pong(&3_u64.to_be_bytes()), Some(3));
        assert!(pings.awaits_proof());
        assert_eq!(pings.on_pong(&5_u64.to_be_bytes()), Some(5));
        assert!(!pings.on_sent(6), "too early for another ping");
        assert_eq!(pings.on_pong(&6_u64.to_be_bytes()), None);
        assert_eq!(pings.turn(0), marked(6));
        assert_eq!(pings.on_pong(&6_u64.to_be_bytes()), Some(6));
        assert_eq!(pings.turn(0), Turn::default());
        assert!(pings.on_sent(7));
    }

    #[test]
    fn a_pong_without_a_mark_of_this_connection_proves_nothing() {
        let mut pings = pings(3);
        assert_eq!(pings.on_pong(&3_u64.to_be_bytes()), None, "before the ping");
        pings.turn(0);
        for payload in [&b""[..], b"hello", &4_u64.to_be_bytes(), &0_u64.to_be_bytes(), &[0; 9]] {
            assert_eq!(pings.on_pong(payload), None, "{payload:?}");
        }
        assert_eq!(pings.on_pong(&3_u64.to_be_bytes()), Some(3));
        assert_eq!(pings.on_pong(&3_u64.to_be_bytes()), None, "a second time");
    }

    #[test]
    fn where_no_pong_comes_one_json_ping_is_open_at_a_time() {
        let mut pings = pings(1);
        assert_eq!(pings.turn(0), marked(1));
        for _ in 1..SILENT_TURNS {
            assert_eq!(pings.turn(0), NOTHING_NEW);
        }
        assert_eq!(pings.turn(0), Turn { json: true, ..NOTHING_NEW });
        assert_eq!(pings.turn(1), NOTHING_NEW);
        pings.on_sent(2);
        assert_eq!(pings.on_json_pong(), Some(1));
        assert!(pings.awaits_proof(), "2 left after the Ping");
        assert_eq!(pings.turn(0), Turn { json: true, ..marked(2) });
        assert_eq!(pings.on_json_pong(), Some(2));
        assert!(!pings.awaits_proof());
    }

    #[test]
    fn the_answer_to_an_earlier_json_ping_proves_nothing() {
        let mut pings = pings(1);
        for _ in 0..SILENT_TURNS {
            pings.turn(2);
        }
        assert!(pings.turn(2).json);
        assert_eq!(pings.on_json_pong(), None);
        assert_eq!(pings.on_json_pong(), None);
        assert_eq!(pings.on_json_pong(), Some(1));
        assert_eq!(pings.on_json_pong(), None);
    }
}
