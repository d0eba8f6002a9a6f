//! Devices that do everything they may at once, to one device and to the relay, each within its own rate limit.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::connection::Route;
use crate::line::{Fields, Frame, Line, PATIENCE};

/// An attacker is connected for so long at a stretch; then it resumes as often as it may, and others get its place.
const SHIFT: Duration = Duration::from_secs(20);
/// How often a device that has registered and left is added for each address, until all attackers have registered.
const REGISTER_EVERY: Duration = Duration::from_secs(5);
/// Resumes in a row when nothing refuses them: the default allowance and as many again.
const RESUMES: u32 = 120;
/// Bytes of `encrypted_data`, in turn.
const SIZES: [usize; 4] = [64, 48 * 1024, 1024, 8 * 1024];
/// Seven days.
const LONG_TTL: u64 = 604_800;
/// The first attackers' address is 127.0.0.2.
const FIRST_ADDRESS: u8 = 2;

/// What the attackers have done, and what they got for it.
#[derive(Debug, Default, Clone)]
pub struct Attack {
    /// Attackers that have registered.
    pub let_in: u64,
    /// Other devices that they have registered.
    pub registered: u64,
    /// Connections at the same time, at most.
    pub connections: u64,
    open: u64,
    /// Handshakes that were refused.
    pub refused_handshakes: u64,
    /// Registrations that were refused.
    pub refused_registrations: u64,
    /// Resumes, and those that were refused.
    pub resumes: u64,
    /// See `resumes`.
    pub refused_resumes: u64,
    /// Messages, key rotations and authentications.
    pub sent: u64,
    /// Messages to the victim that the relay has taken.
    pub acked_to_victim: u64,
    /// Messages to other devices that the relay has taken.
    pub acked_to_others: u64,
    /// Errors by code.
    pub errors: BTreeMap<u16, u64>,
    /// How their connections ended, where they did not end them.
    pub closes: BTreeMap<String, u64>,
}

/// Who attacks whom.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How to get to the relay.
    pub route: Route,
    /// How many attackers.
    pub devices: usize,
    /// From how many addresses.
    pub addresses: u8,
    /// They connect and do nothing.
    pub silent: bool,
    /// The victim's id.
    pub victim: String,
}

/// What all attackers share.
struct Field {
    plan: Plan,
    attack: RefCell<Attack>,
    /// Devices that have registered and left.
    absent: RefCell<VecDeque<String>>,
    /// `encrypted_data` of each size.
    bodies: Vec<String>,
}

/// Attacks until it is enough.
///
/// # Errors
///
/// None; the signature is that of background work.
pub async fn attack(plan: Plan, enough: oneshot::Receiver<()>) -> io::Result<Attack> {
    let bodies = SIZES.iter().map(|size| "QUJD".repeat(size / 4)).collect();
    let field = Field { plan, attack: RefCell::default(), absent: RefCell::default(), bodies };
    let field = Rc::new(field);
    let mut tasks = JoinSet::new();
    for number in 0..field.plan.devices {
        tasks.spawn_local(field.clone().live(number));
    }
    if !field.plan.silent {
        for address in 0..field.plan.addresses {
            tasks.spawn_local(field.clone().register_others(address));
        }
    }
    // A sender that is gone has the same meaning as the signal.
    let _ = enough.await;
    tasks.shutdown().await;
    Ok(field.attack.take())
}

impl Field {
    fn source(&self, number: usize) -> Ipv4Addr {
        let offset = (number % usize::from(self.plan.addresses.max(1))) as u8;
        Ipv4Addr::new(127, 0, 0, FIRST_ADDRESS + offset)
    }

    fn count(&self, count: impl FnOnce(&mut Attack)) {
        count(&mut self.attack.borrow_mut());
    }

    /// Gets in, however often the relay refuses; waits as told, and a little more, another time for each device.
    async fn enter(&self, number: usize, payload: &str) -> (Line, Fields) {
        loop {
            match Line::enter(&self.plan.route, self.source(number), payload).await {
                Ok(entered) => {
                    self.count(|attack| {
                        attack.open += 1;
                        attack.connections = attack.connections.max(attack.open);
                    });
                    return entered;
                }
                Err(refused) => {
                    self.count(|attack| match refused.is_registration {
                        true if payload.contains("resume_token") => attack.refused_resumes += 1,
                        true => attack.refused_registrations += 1,
                        false if refused.code > 0 => attack.refused_handshakes += 1,
                        false => *attack.closes.entry(refused.reason).or_default() += 1,
                    });
                    sleep(refused.wait + Duration::from_millis(number as u64 % 16 * 50)).await;
                }
            }
        }
    }

    /// One attacker.
    async fn live(self: Rc<Self>, number: usize) {
        let (mut line, fields) = self.enter(number, r#"{"resumable":true}"#).await;
        self.count(|attack| attack.let_in += 1);
        let (Some(own), Some(token)) = (fields.device_id, fields.resume_token) else { return };
        let resume = format!(r#"{{"resume_token":"{token}"}}"#);
        let mut step = number;
        loop {
            let end = Instant::now() + SHIFT;
            let ended = if self.plan.silent {
                self.watch(&mut line).await
            } else {
                let act = async {
                    loop {
                        step += 1;
                        self.act(&mut line, number, &own, step).await?;
                    }
                };
                select_until(end, act).await
            };
            self.count(|attack| attack.open -= 1);
            match ended {
                Ok(()) => line.leave().await,
                Err(end) => {
                    self.count(|attack| *attack.closes.entry(end.to_string()).or_default() += 1)
                }
            }
            if !self.plan.silent {
                self.resume_often(number, &resume).await;
            }
            (line, _) = self.enter(number, &resume).await;
            self.count(|attack| attack.resumes += 1);
        }
    }

    /// Reads until the connection ends.
    async fn watch(&self, line: &mut Line) -> io::Result<()> {
        loop {
            line.next().await?;
        }
    }

    /// Resumes again and again until the relay refuses.
    async fn resume_often(&self, number: usize, payload: &str) {
        for _ in 0..RESUMES {
            match Line::enter(&self.plan.route, self.source(number), payload).await {
                Ok((line, _)) => {
                    self.count(|attack| attack.resumes += 1);
                    line.leave().await;
                }
                Err(refused) => {
                    self.count(|attack| match refused.is_registration {
                        true => attack.refused_resumes += 1,
                        false => attack.refused_handshakes += 1,
                    });
                    sleep(refused.wait).await;
                    return;
                }
            }
        }
    }

    /// Sends one frame and waits for what becomes of it.
    async fn act(&self, line: &mut Line, number: usize, own: &str, step: usize) -> io::Result<()> {
        let victim = &*self.plan.victim;
        match step % 8 {
            1 => {
                self.say_and_ping(line, &format!(
                    r#"{{"type":"KeyRotationUpdate","payload":{{"sender_id":"{own}","recipient_id":"{victim}","encrypted_key_package":"QUJD","key_id":"{number}-{step}"}}}}"#
                )).await
            }
            3 => {
                self.say_and_ping(line, &format!(
                    r#"{{"type":"AuthRequest","payload":{{"device_id":"{own}","recipient_id":"{victim}","public_key":"QUJD","challenge":"{step}"}}}}"#
                )).await
            }
            5 | 7 => {
                let other = self.absent.borrow_mut().pop_front();
                let Some(other) = other else { return self.send(line, number, own, step, victim).await };
                self.absent.borrow_mut().push_back(other.clone());
                self.send(line, number, own, step, &other).await
            }
            _ => self.send(line, number, own, step, victim).await,
        }
    }

    /// Sends a frame that the relay does not answer, and a Ping: Errors about the frame come before the Pong.
    async fn say_and_ping(&self, line: &mut Line, text: &str) -> io::Result<()> {
        line.say(text);
        line.say(r#"{"type":"Ping"}"#);
        self.count(|attack| attack.sent += 1);
        let mut wait = Duration::ZERO;
        let answered = timeout(PATIENCE, async {
            loop {
                let Frame { r#type, payload } = line.next().await?;
                match &*r#type {
                    "Pong" => return Ok(()),
                    "Error" => wait = wait.max(self.error(&payload)),
                    _ => {}
                }
            }
        });
        answered.await.unwrap_or_else(|_| Err(io::Error::other("no Pong")))?;
        sleep(wait).await;
        Ok(())
    }

    /// Sends a message and waits for its Ack or Error.
    async fn send(
        &self,
        line: &mut Line,
        number: usize,
        own: &str,
        step: usize,
        to: &str,
    ) -> io::Result<()> {
        // To others the largest, to fill the relay; to the victim each size in turn.
        let is_victim = to == self.plan.victim;
        let body = &self.bodies[if is_victim { step / 2 % SIZES.len() } else { 1 }];
        let id = format!("{:08x}-0000-4000-8000-{step:012x}", number + 0x1000);
        line.say(&format!(
            r#"{{"type":"Send","payload":{{"message_id":"{id}","recipient_id":"{to}","sender_id":"{own}","encrypted_data":"{body}","ttl":{LONG_TTL}}}}}"#
        ));
        self.count(|attack| attack.sent += 1);
        let answered = timeout(PATIENCE, async {
            loop {
                let Frame { r#type, payload } = line.next().await?;
                let is_answer = payload.message_id.as_ref() == Some(&id);
                match &*r#type {
                    "Ack" if is_answer => {
                        self.count(|attack| match is_victim {
                            true => attack.acked_to_victim += 1,
                            false => attack.acked_to_others += 1,
                        });
                        return Ok(Duration::ZERO);
                    }
                    "Error" => {
                        let wait = self.error(&payload);
                        if is_answer {
                            return Ok(wait);
                        }
                    }
                    _ => {}
                }
            }
        });
        let wait = answered.await.unwrap_or_else(|_| Err(io::Error::other("no answer to Send")))?;
        sleep(wait).await;
        Ok(())
    }

    /// Counts an Error; answers how long to wait. Whatever has no room is tried again at once: only the rate limit is obeyed.
    fn error(&self, payload: &Fields) -> Duration {
        let code = payload.code.unwrap_or(0);
        self.count(|attack| *attack.errors.entry(code).or_default() += 1);
        if code == 429 { payload.wait() } else { Duration::ZERO }
    }

    /// Registers one device after the other and leaves it, slowly at first, so that the attackers get in.
    async fn register_others(self: Rc<Self>, address: u8) {
        for count in 0_u32.. {
            let entered = self.enter(address.into(), r#"{"resumable":true}"#);
            let (line, fields) = entered.await;
            line.leave().await;
            self.count(|attack| {
                attack.open -= 1;
                attack.registered += 1;
            });
            self.absent.borrow_mut().extend(fields.device_id);
            let are_all_in = self.attack.borrow().let_in >= self.plan.devices as u64;
            if count > 0 && !are_all_in {
                sleep(REGISTER_EVERY).await;
            }
        }
    }
}

/// Works until this time.
async fn select_until(end: Instant, work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::select! {
        ended = work => ended,
        () = sleep_until(end) => Ok(()),
    }
}
