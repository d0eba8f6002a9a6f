//! Alice and Bob, who have written to each other before, and newcomers, whom Bob does not know.
//!
//! Alice is always there. She sends a message, now and then a key rotation or an authentication in its place. Bob, whom the
//! attackers have chosen, is away half the time, resumes by token, confirms everything and answers Alice's messages. Both stay
//! within the default rate limit.

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use tokio::select;
use tokio::task::spawn_local;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};

use super::ledger::{Ledger, Sender};
use crate::connection::Route;
use crate::line::{Frame, Line, PATIENCE};

/// Alice sends so often, 50 times a minute.
const TICK: Duration = Duration::from_millis(1200);
/// A message of Alice in so many gives way to a key rotation, and another to an authentication.
const CYCLE: u64 = 10;
const ALICE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 101);
const BOB: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 102);
/// The addresses of the first newcomers; later ones follow in 127.0.1.0/24.
const FIRST_NEWCOMER: u8 = 103;

/// What both friends know.
#[derive(Clone)]
pub struct Acquainted {
    /// How to get to the relay.
    pub route: Route,
    /// Their books.
    pub ledger: Rc<Ledger>,
    /// Alice's id.
    pub alice: String,
    /// Bob's id.
    pub bob: String,
    alice_token: String,
    bob_token: String,
}

/// Registers both and lets each write to the other once.
///
/// # Errors
///
/// When the relay does not let them.
pub async fn meet(route: &Route) -> Result<(Acquainted, Line, Line), String> {
    let register = async |source| {
        let (line, fields) = Line::enter(route, source, r#"{"resumable":true}"#)
            .await
            .map_err(|refused| format!("a friend: {}", refused.reason))?;
        let device = fields.device_id.zip(fields.resume_token);
        let (id, token) = device.ok_or("a RegisterResponse without id or token")?;
        Ok::<_, String>((line, id, token))
    };
    let (alice_line, alice, alice_token) = register(ALICE).await?;
    let (bob_line, bob, bob_token) = register(BOB).await?;
    let (route, ledger) = (route.clone(), Ledger::new());
    let know = Acquainted { route, ledger, alice, bob, alice_token, bob_token };
    let Acquainted { ledger, alice, bob, .. } = &know;
    alice_line.say(&ledger.send(Sender::Alice, alice, bob, Instant::now()).1);
    bob_line.say(&ledger.send(Sender::Bob, bob, alice, Instant::now()).1);
    let (mut alice_line, mut bob_line) = (alice_line, bob_line);
    let greeted = timeout(PATIENCE, async {
        while !ledger.is_settled() {
            select! {
                frame = alice_line.next() => know.alice_reads(&alice_line, frame?),
                frame = bob_line.next() => know.bob_reads(&bob_line, frame?),
            }
        }
        Ok::<_, std::io::Error>(())
    });
    match greeted.await {
        Ok(Ok(())) => Ok((know, alice_line, bob_line)),
        Ok(Err(failed)) => Err(format!("a friend: {failed}")),
        Err(_) => Err("the friends' first messages did not arrive".to_owned()),
    }
}

impl Acquainted {
    /// Alice's life; the caller ends it.
    pub async fn live_as_alice(self, mut line: Line) {
        let Self { ledger, alice, bob, .. } = &self;
        let mut tick = interval(TICK);
        for number in 0_u64.. {
            let due = loop {
                select! {
                    due = tick.tick() => break due,
                    frame = line.next() => match frame {
                        Ok(frame) => self.alice_reads(&line, frame),
                        Err(end) => {
                            *ledger.closes.borrow_mut().entry(format!("Alice, {end}")).or_default() += 1;
                            line = self.resume(Sender::Alice).await;
                        }
                    },
                }
            };
            if ledger.is_stopping() {
                continue;
            }
            match number % CYCLE {
                4 => {
                    let (sent, confirmed) = ledger.keys.get();
                    ledger.keys.set((sent + 1, confirmed));
                    line.say(&format!(
                        r#"{{"type":"KeyRotationUpdate","payload":{{"sender_id":"{alice}","recipient_id":"{bob}","encrypted_key_package":"QUJD","key_id":"alice-{number}"}}}}"#
                    ));
                }
                9 if ledger.is_bob_there() && ledger.auth_began.get().is_none() => {
                    let (begun, verified) = ledger.auths.get();
                    ledger.auths.set((begun + 1, verified));
                    ledger.auth_began.set(Some(Instant::now()));
                    line.say(&format!(
                        r#"{{"type":"AuthRequest","payload":{{"device_id":"{alice}","recipient_id":"{bob}","public_key":"QUJD","challenge":"first"}}}}"#
                    ));
                }
                _ => line.say(&ledger.send(Sender::Alice, alice, bob, due).1),
            }
        }
    }

    /// What Alice does with a frame.
    fn alice_reads(&self, line: &Line, Frame { r#type, payload }: Frame) {
        let Self { ledger, alice, bob, .. } = self;
        match (&*r#type, &payload.message_id) {
            ("Receive", Some(id)) => {
                ledger.receive(id);
                line.say(&ack(id, bob));
            }
            ("KeyRotationAck", _) => {
                let (sent, confirmed) = ledger.keys.get();
                ledger.keys.set((sent, confirmed + 1));
            }
            ("AuthResponse", _) => line.say(&format!(
                r#"{{"type":"AuthVerify","payload":{{"device_id":"{alice}","recipient_id":"{bob}","challenge_response":"QUJD"}}}}"#
            )),
            _ => self.either_reads(line, &r#type, &payload),
        }
    }

    /// What Bob does with a frame.
    fn bob_reads(&self, line: &Line, Frame { r#type, payload }: Frame) {
        let Self { ledger, alice, bob, .. } = self;
        let sender = payload.sender_id.as_deref().unwrap_or_default();
        match (&*r#type, &payload.message_id) {
            ("Receive", Some(id)) => {
                line.say(&ack(id, sender));
                match ledger.receive(id) {
                    Some((Sender::Alice, true)) if ledger.connections() > 0 => {
                        line.say(&ledger.send(Sender::Bob, bob, alice, Instant::now()).1);
                    }
                    Some(_) => {}
                    None => ledger.nuisance.set(ledger.nuisance.get() + 1),
                }
            }
            ("KeyRotationUpdate", _) => {
                let key = payload.key_id.unwrap_or_default();
                line.say(&format!(
                    r#"{{"type":"KeyRotationAck","payload":{{"sender_id":"{bob}","recipient_id":"{sender}","key_id":{key},"success":true}}}}"#
                ));
                if sender != alice {
                    ledger.nuisance.set(ledger.nuisance.get() + 1);
                }
            }
            // He authenticates with those whom he knows.
            ("AuthRequest", _) if payload.device_id.as_ref() == Some(alice) => line.say(&format!(
                r#"{{"type":"AuthResponse","payload":{{"device_id":"{bob}","recipient_id":"{alice}","challenge_response":"QUJD","challenge":"second"}}}}"#
            )),
            ("AuthRequest", _) => ledger.nuisance.set(ledger.nuisance.get() + 1),
            ("AuthVerify", _) => {
                let (begun, verified) = ledger.auths.get();
                ledger.auths.set((begun, verified + 1));
                ledger.auth_began.set(None);
            }
            _ => self.either_reads(line, &r#type, &payload),
        }
    }

    /// Acks and Errors.
    fn either_reads(&self, line: &Line, r#type: &str, payload: &crate::line::Fields) {
        match (r#type, &payload.message_id) {
            ("Ack", Some(id)) => self.ledger.ack(id),
            ("Error", id) => {
                let code = payload.code.unwrap_or(0);
                self.ledger.error(code);
                if let Some(id) = id
                    && [429, 503].contains(&code)
                {
                    self.repeat_later(line, id.clone(), payload.wait());
                }
            }
            _ => {}
        }
    }

    /// Repeats a refused message at its time.
    fn repeat_later(&self, line: &Line, id: String, wait: Duration) {
        let (writer, ledger) = (line.writer.clone(), self.ledger.clone());
        spawn_local(async move {
            sleep(wait).await;
            if let Some(text) = ledger.text(&id) {
                writer.with(|out| crate::frame::write(out, crate::frame::TEXT, text.as_bytes()));
            }
        });
    }

    /// Resumes, however often the relay refuses, and repeats what is not acked yet.
    async fn resume(&self, who: Sender) -> Line {
        let (source, token) = match who {
            Sender::Alice => (ALICE, &self.alice_token),
            _ => (BOB, &self.bob_token),
        };
        loop {
            let payload = format!(r#"{{"resume_token":"{token}"}}"#);
            match Line::enter(&self.route, source, &payload).await {
                Ok((line, _)) => {
                    for text in self.ledger.unacked(who) {
                        line.say(&text);
                    }
                    return line;
                }
                Err(refused) => {
                    self.ledger.error(refused.code);
                    sleep(refused.wait).await;
                }
            }
        }
    }

    /// Bob's life: there for so long, away for so long, again and again, until nothing new is begun; then he stays. The caller ends it.
    /// In the middle of each time a newcomer writes to him.
    pub async fn live_as_bob(self, mut line: Line, time: Duration) {
        let ledger = &self.ledger;
        for number in 0.. {
            ledger.begin_connection();
            self.clone().expect_newcomer(2 * number, time / 2);
            let mut end = Instant::now() + time;
            loop {
                select! {
                    // First what has arrived: it is confirmed before he leaves.
                    biased;
                    frame = line.next() => match frame {
                        Ok(frame) => self.bob_reads(&line, frame),
                        Err(end) => {
                            *ledger.closes.borrow_mut().entry(format!("Bob, {end}")).or_default() += 1;
                            ledger.end_connection();
                            line = self.resume(Sender::Bob).await;
                            ledger.begin_connection();
                        }
                    },
                    () = sleep_until(end) => {
                        if !ledger.is_stopping() {
                            break;
                        }
                        end += time;
                    }
                }
            }
            ledger.end_connection();
            line.leave().await;
            self.clone().expect_newcomer(2 * number + 1, time / 2);
            sleep(time).await;
            line = self.resume(Sender::Bob).await;
        }
    }

    /// Lets a newcomer write to Bob after this time.
    fn expect_newcomer(self, number: u64, wait: Duration) {
        spawn_local(async move {
            sleep(wait).await;
            if !self.ledger.is_stopping() {
                self.newcomer(number).await;
            }
        });
    }

    /// A device of an address of its own registers, sends Bob one message and leaves when the relay has answered.
    async fn newcomer(&self, number: u64) {
        let Self { route, ledger, bob, .. } = self;
        let last = u64::from(FIRST_NEWCOMER) + number;
        let source = Ipv4Addr::new(127, 0, (last >> 8) as u8, (last & 0xff) as u8);
        let when = usize::from(!ledger.is_bob_there());
        ledger.newcomers.borrow_mut()[when].came += 1;
        let sent = timeout(PATIENCE, async {
            let entered = Line::enter(route, source, "{}").await;
            let (mut line, fields) = entered.map_err(|refused| refused.reason)?;
            let own = fields.device_id.unwrap_or_default();
            let (id, text) = ledger.send(Sender::Newcomer, &own, bob, Instant::now());
            line.say(&text);
            loop {
                let Frame { r#type, payload } = line.next().await.map_err(|end| end.to_string())?;
                match &*r#type {
                    "Ack" => {
                        ledger.ack(&id);
                        line.leave().await;
                        return Ok(());
                    }
                    "Error" => return Err(format!("Error {}", payload.code.unwrap_or(0))),
                    _ => {}
                }
            }
        });
        match sent.await.unwrap_or_else(|_| Err("nothing".to_owned())) {
            Ok(()) => ledger.newcomers.borrow_mut()[when].acked += 1,
            Err(why) => *ledger.turned_away.borrow_mut().entry(why).or_default() += 1,
        }
    }
}

fn ack(id: &str, sender: &str) -> String {
    format!(r#"{{"type":"Ack","payload":{{"message_id":"{id}","sender_id":"{sender}"}}}}"#)
}
