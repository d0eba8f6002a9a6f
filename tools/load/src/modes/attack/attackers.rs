//! Devices that do everything they may at once, to one device and to the relay, each within its own rate limit.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::connection::Route;
use crate::line::{Fields, Frame, Line, PATIENCE};

/// Devices that the attackers register and leave, to fill their queues: of all addresses together, and at least two of each.
const ABSENT: usize = 24;
/// How often one of an address comes back.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// To how many attackers it then writes.
const AT_A_TIME: usize = 20;
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
    /// An attacker is connected for about this time at a stretch; then it resumes as often as it may, and others get its place.
    pub shift: Duration,
    /// The victim's id.
    pub victim: String,
}

/// A device that has registered and left.
struct Absent {
    id: String,
    token: String,
    /// The number of its address.
    address: u8,
    /// To how many of the attackers it has written.
    written: usize,
}

/// What all attackers share.
struct Field {
    plan: Plan,
    attack: RefCell<Attack>,
    /// The attackers' ids.
    attackers: RefCell<Vec<String>>,
    /// Devices that have registered and left.
    absent: RefCell<Vec<Absent>>,
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
    let field = Field {
        plan,
        attack: RefCell::default(),
        attackers: RefCell::default(),
        absent: RefCell::default(),
        bodies,
    };
    let field = Rc::new(field);
    let mut tasks = JoinSet::new();
    tasks.spawn_local(field.clone().begin());
    // A sender that is gone has the same meaning as the signal.
    let _ = enough.await;
    tasks.shutdown().await;
    Ok(field.attack.take())
}

impl Field {
    /// Everything there is to do, until it is dropped.
    async fn begin(self: Rc<Self>) {
        let mut tasks = JoinSet::new();
        let addresses = if self.plan.silent { 0 } else { self.plan.addresses };
        for address in 0..addresses {
            self.register_absent(address).await;
            tasks.spawn_local(self.clone().keep_absent(address));
        }
        for number in 0..self.plan.devices {
            tasks.spawn_local(self.clone().live(number));
        }
        while tasks.join_next().await.is_some() {}
    }

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
        self.attackers.borrow_mut().push(own.clone());
        // Not all at once, and not in step with the victim.
        let shift = self.plan.shift * (60 + number as u32 % 61) / 90;
        let resume = format!(r#"{{"resume_token":"{token}"}}"#);
        let mut step = number;
        loop {
            let end = Instant::now() + shift;
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
                let other = {
                    let absent = self.absent.borrow();
                    absent.get((number + step / 2) % absent.len().max(1)).map(|absent| absent.id.clone())
                };
                self.send(line, number, own, step, other.as_deref().unwrap_or(victim)).await
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

    /// Registers the devices of one address that are away.
    async fn register_absent(&self, address: u8) {
        let count = ABSENT.div_ceil(self.plan.addresses.max(1).into()).max(2);
        for _ in 0..count {
            self.register_one(address).await;
        }
    }

    async fn register_one(&self, address: u8) {
        let entered = self.enter(address.into(), r#"{"resumable":true}"#).await;
        let (line, fields) = entered;
        line.leave().await;
        self.count(|attack| {
            attack.open -= 1;
            attack.registered += 1;
        });
        if let Some((id, token)) = fields.device_id.zip(fields.resume_token) {
            self.absent.borrow_mut().push(Absent { id, token, address, written: 0 });
        }
    }

    /// Lets the absent devices of one address come back in turn, each to write to attackers: those are its correspondents then,
    /// and may fill its queue. When all attackers are in, as many further devices are registered as the relay permits.
    async fn keep_absent(self: Rc<Self>, address: u8) {
        for turn in 0_usize.. {
            sleep(KEEP_EVERY).await;
            let of_address: Vec<usize> = {
                let absent = self.absent.borrow();
                (0..absent.len()).filter(|index| absent[*index].address == address).collect()
            };
            if let Some(&index) = of_address.get(turn % of_address.len().max(1)) {
                self.write_to_attackers(index).await;
            }
            if self.attackers.borrow().len() >= self.plan.devices {
                self.register_one(address).await;
            }
        }
    }

    async fn write_to_attackers(&self, index: usize) {
        let (id, payload, address, written) = {
            let Absent { id, token, address, written } = &self.absent.borrow()[index];
            let payload = format!(r#"{{"resume_token":"{token}"}}"#);
            (id.clone(), payload, *address, *written)
        };
        let some = self.attackers.borrow().iter().skip(written).take(AT_A_TIME).cloned().collect();
        let some: Vec<String> = some;
        if some.is_empty() {
            return;
        }
        let (mut line, _) = self.enter(address.into(), &payload).await;
        for (offset, attacker) in some.iter().enumerate() {
            let step = (written + offset) as u64;
            let number = index + 0x0100_0000;
            // Whether the attacker is there does not matter.
            let text = format!(
                r#"{{"type":"Send","payload":{{"message_id":"{number:08x}-0000-4000-8000-{step:012x}","recipient_id":"{attacker}","sender_id":"{id}","encrypted_data":"QUJD","ttl":0}}}}"#
            );
            if self.say_and_ping(&mut line, &text).await.is_err() {
                break;
            }
        }
        line.leave().await;
        self.count(|attack| {
            attack.open -= 1;
            attack.resumes += 1;
        });
        self.absent.borrow_mut()[index].written = written + some.len();
    }
}

/// Works until this time.
async fn select_until(end: Instant, work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::select! {
        ended = work => ended,
        () = sleep_until(end) => Ok(()),
    }
}
