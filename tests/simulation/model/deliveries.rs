//! Checks the deliveries of an event, in order: each must be expected, and each expected one must be there.

use sealpost::clock::Now;
use sealpost::relay::command::ConnectionId;
use sealpost::relay::delivery::Delivery;

use super::{Dev, Item, Model, Reply, State};

impl Model {
    /// Checks every delivery of one event, in order.
    pub fn check_deliveries(&mut self, now: Now, deliveries: &mut Vec<(ConnectionId, Delivery)>) {
        self.place(deliveries);
        let mut closed = false;
        for (conn, delivery) in deliveries.drain(..) {
            if Some(conn) == self.replaced {
                assert!(!closed, "a delivery follows Close");
                match delivery {
                    Delivery::Refused(refused) => {
                        self.check_reply(conn, Reply::Refused(refused.refusal, refused.context));
                    }
                    Delivery::Close(reason) => {
                        self.check_reply(conn, Reply::Close(reason));
                        closed = true;
                    }
                    _ => panic!("a replaced connection is given something"),
                }
                continue;
            }
            let mut live = self.live.iter().copied();
            let dev =
                live.find(|dev| self.devices[*dev].conn.as_ref().is_some_and(|c| c.id == conn));
            let Some(dev) = dev else { panic!("a connection that is over is given something") };
            let accepted = matches!(delivery, Delivery::Registered(_));
            assert!(
                accepted != self.conn(dev).is_accepted,
                "RegistrationAccepted is the first delivery, exactly once"
            );
            match delivery {
                Delivery::Registered(accepted) => {
                    self.conn_mut(dev).is_accepted = true;
                    let device = &self.devices[dev];
                    let items = device.queue.iter().map(|nr| &self.items[*nr]);
                    let counted = items.filter(|item| {
                        item.kind.is_counted() && matches!(item.state, State::Waiting)
                    });
                    let (over, due): (Vec<_>, Vec<_>) = counted.partition(|item| item.is_over(now));
                    assert!(accepted.device == device.id);
                    assert_eq!(accepted.token.is_some(), device.resumable);
                    let queued = due.len()..=due.len() + over.len();
                    assert!(queued.contains(&accepted.queued), "{} queued", accepted.queued);
                }
                Delivery::Frame { seq, body, .. } => self.check_frame(now, dev, seq, body.as_ref()),
                Delivery::Notice { number, body, needs_proof, .. } => {
                    assert_eq!(needs_proof, self.devices[dev].resumable);
                    self.check_notice(now, dev, number, body.as_ref());
                }
                Delivery::Ack { id, status } => self.check_reply(conn, Reply::Ack(id, status)),
                Delivery::Refused(refused) => {
                    self.check_reply(conn, Reply::Refused(refused.refusal, refused.context));
                }
                Delivery::Close(_) => panic!("a connection is closed without a reason"),
                Delivery::Pong | Delivery::UnmatchedAck => panic!("nothing asked for this"),
            }
        }
        assert!(self.expected_replies.is_empty(), "missing replies: {:?}", self.expected_replies);
        self.possible_replies.clear();
        self.fresh = None;
        self.replaced = None;
    }

    fn check_reply(&mut self, conn: ConnectionId, reply: Reply) {
        let entry = (conn, reply);
        for list in [&mut self.expected_replies, &mut self.possible_replies] {
            if let Some(place) = list.iter().position(|known| *known == entry) {
                list.remove(place);
                return;
            }
        }
        panic!("an unexpected reply: {entry:?}");
    }

    fn check_frame(&mut self, now: Now, dev: Dev, mark: u64, body: &[u8]) {
        let mut queue = self.devices[dev].queue.iter().copied();
        let next = queue.find(|nr| {
            let item = &self.items[*nr];
            item.state == State::Waiting && (item.deadline > now.mono.0 || self.fresh == Some(*nr))
        });
        let text = String::from_utf8_lossy(body);
        let Some(nr) = next else { panic!("nothing is due, but {text} is delivered") };
        let item = &self.items[nr];
        let next = String::from_utf8_lossy(&item.body);
        assert!(*item.body == *body, "{text} is delivered, {next} is due");
        assert!(!item.seen || self.devices[dev].resumable, "{text} is delivered twice");
        assert_eq!(item.mark, mark, "{text} has another place");
        let (bytes, from) = (item.bytes(), item.from);
        let counted = item.kind.is_counted();
        let in_flight = |item: &Item| item.state == State::Flying && !item.is_over(now);
        assert!(self.has_credit(dev, bytes, in_flight), "{text} goes over the window");
        let conn = self.conn_mut(dev);
        assert!(!conn.holding, "{text} is delivered to a device that is offline");
        assert!(mark > conn.last_mark, "marks do not grow");
        conn.last_mark = mark;
        conn.marks.push_back(mark);
        if counted {
            self.meet(dev, from);
        }
        let item = &mut self.items[nr];
        item.seen = true;
        item.state = State::Flying;
    }
}
