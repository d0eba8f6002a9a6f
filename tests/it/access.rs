//! Who may register: access tokens, their bounds and their end. (protocol: Access tokens)

use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use sealpost::access::file::{add, remove};
use sealpost::access::{AccessToken, Bounds, SecretHash};
use sealpost::settings::{AccessMode, Settings};

use crate::support::{Device, Relay};

/// A file of tokens. The secret of each token is its name behind `secret-of-`.
struct Tokens {
    _directory: TempDir,
    path: PathBuf,
}

impl Tokens {
    fn of(names: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let tokens = Self { path: directory.path().join("tokens"), _directory: directory };
        for name in names {
            tokens.add(name, None, Bounds::default());
        }
        tokens
    }

    fn bounded(name: &str, bounds: Bounds) -> Self {
        let tokens = Self::of(&[]);
        tokens.add(name, None, bounds);
        tokens
    }

    fn add(&self, name: &str, expires_ms: Option<u64>, bounds: Bounds) {
        let hash = SecretHash::of(&secret(name));
        let token = AccessToken { name: name.into(), hash, expires_ms, bounds };
        add(&self.path, token).expect("a token");
    }

    fn replace(&self, name: &str, bounds: Bounds) {
        remove(&self.path, name).expect("it was there");
        self.add(name, None, bounds);
    }

    fn apply(&self, settings: &mut Settings) {
        settings.access.mode = AccessMode::Tokens;
        settings.access.tokens_file = self.path.clone();
    }

    fn relay(&self) -> Relay {
        Relay::with(|settings| self.apply(settings))
    }

    /// A relay with limits out of the way, and loopback exempt from limits by address.
    fn generous_relay(&self) -> Relay {
        Relay::generous(|settings| self.apply(settings))
    }

    /// For a relay that was asked something before, and so has started.
    async fn reload(&self, relay: &Relay) {
        relay.reload_handle.reload(&relay.settings);
        // A registration now is handled after the reload, by each actor.
        let mut device = Device::connect(relay).await;
        device.send(json!({"type": "Register"})).await;
        device.expect_error(401).await;
        device.close().await;
    }
}

fn secret(name: &str) -> String {
    format!("secret-of-{name}")
}

fn with_token(name: &str) -> Value {
    json!({"type": "Register", "payload": {"access_token": secret(name)}})
}

fn resumable_with(name: &str) -> Value {
    json!({"type": "Register", "payload": {"access_token": secret(name), "resumable": true}})
}

/// Connects with `Authorization` headers, to a path; sends nothing yet.
async fn connect(relay: &Relay, path: &str, headers: &[&str]) -> Device {
    let tcp = TcpStream::connect(relay.public).await.expect("the relay listens");
    let url = format!("ws://{}{path}", relay.public);
    let mut request = url.into_client_request().expect("a request");
    for value in headers {
        request.headers_mut().append("Authorization", value.parse().expect("a value"));
    }
    Device::upgrade(request, tcp).await
}

async fn refused(relay: &Relay, register: Value, code: u16) -> Value {
    let mut device = Device::connect(relay).await;
    device.expect_refusal(register, code).await
}

/// The one wording of all 401s.
fn assert_denied(error: &Value) {
    let expected = json!({"message": "A valid access token is needed to register.", "code": 401});
    assert_eq!(*error, expected);
}

fn devices(most: u32) -> Bounds {
    Bounds { devices: Some(most), ..Bounds::default() }
}

#[tokio::test]
async fn an_open_relay_asks_for_no_token_and_ignores_one() {
    let relay = Relay::start();
    Device::plain(&relay).await;
    Device::register(&relay, with_token("nobody")).await;
    let mut device = connect(&relay, "/ws", &["Bearer nobody"]).await;
    device.send(json!({"type": "Register"})).await;
    device.expect_frame("RegisterResponse").await;
    let wrong = json!({"type": "Register", "payload": {"access_token": 7}});
    let error = refused(&relay, wrong, 400).await;
    assert_eq!(error["message"], "Malformed message: access_token of Register must be a string.");
}

#[tokio::test]
async fn a_missing_an_unknown_and_a_contradictory_token_are_refused_in_the_same_words() {
    let tokens = Tokens::of(&["acme", "other"]);
    let relay = tokens.relay();
    assert_denied(&refused(&relay, json!({"type": "Register"}), 401).await);
    assert_denied(&refused(&relay, with_token("nobody"), 401).await);
    let long = json!({"type": "Register", "payload": {"access_token": "x".repeat(10_000)}});
    assert_denied(&refused(&relay, long, 401).await);
    let bearer = format!("Bearer {}", secret("acme"));
    let mut device = connect(&relay, "/ws", &[&bearer]).await;
    assert_denied(&device.expect_refusal(with_token("other"), 401).await);
    // The connection stays open, and the header still counts.
    device.send(with_token("acme")).await;
    device.expect_frame("RegisterResponse").await;
}

#[tokio::test]
async fn the_token_may_stand_in_the_head_and_then_a_basic_client_sees_the_basic_shape() {
    let tokens = Tokens::of(&["acme"]);
    let relay = tokens.relay();
    for scheme in ["Bearer", "bearer", "BEARER "] {
        let header = format!("{scheme} {}", secret("acme"));
        let mut device = connect(&relay, "/ws", &[&header]).await;
        device.send(json!({"type": "Register"})).await;
        let response = device.expect_frame("RegisterResponse").await;
        assert_eq!(response.as_object().map(|fields| fields.len()), Some(1), "{response}");
    }
}

#[tokio::test]
async fn a_token_in_the_address_or_of_another_scheme_is_not_read() {
    let tokens = Tokens::of(&["acme"]);
    let relay = tokens.relay();
    let secret = secret("acme");
    let query = format!("/ws?access_token={secret}");
    let [good, basic] = ["Bearer", "Basic"].map(|scheme| format!("{scheme} {secret}"));
    for (path, headers) in [
        (query.as_str(), &[][..]),
        ("/ws", &[&*basic]),
        ("/ws", &[&*secret]),
        ("/ws", &["Bearer"]),
        // Of two, a proxy might mean the other one.
        ("/ws", &[&*good, "Bearer another"]),
    ] {
        let mut device = connect(&relay, path, headers).await;
        assert_denied(&device.expect_refusal(json!({"type": "Register"}), 401).await);
    }
}

#[tokio::test]
async fn a_device_resumes_without_a_token_even_when_its_token_is_revoked() {
    let tokens = Tokens::of(&["acme", "other"]);
    let relay = tokens.relay();
    let device = Device::register(&relay, resumable_with("acme")).await;
    let token = device.token();
    drop(device);
    Device::resume(&relay, &token).await;
    remove(&tokens.path, "acme").expect("it was there");
    Device::register(&relay, with_token("acme")).await;
    tokens.reload(&relay).await;
    assert_denied(&refused(&relay, with_token("acme"), 401).await);
    Device::resume(&relay, &token).await;
    Device::register(&relay, with_token("other")).await;
}

#[tokio::test]
async fn a_file_with_a_mistake_keeps_the_old_tokens() {
    let tokens = Tokens::of(&["acme"]);
    let relay = tokens.relay();
    let before = fs::read_to_string(&tokens.path).expect("a file");
    for wrong in [format!("{before}no-hash\n"), format!("{before}{before}")] {
        fs::write(&tokens.path, wrong).expect("written");
        tokens.reload(&relay).await;
        Device::register(&relay, with_token("acme")).await;
    }
    fs::remove_file(&tokens.path).expect("removed");
    tokens.reload(&relay).await;
    Device::register(&relay, with_token("acme")).await;
    fs::write(&tokens.path, "# nobody\n").expect("written");
    tokens.reload(&relay).await;
    assert_denied(&refused(&relay, with_token("acme"), 401).await);
}

#[tokio::test]
async fn an_expired_token_registers_no_more_devices() {
    let tokens = Tokens::of(&["other"]);
    let relay = tokens.relay();
    tokens.add("acme", Some(relay.clock.now().wall_ms + 60_000), Bounds::default());
    refused(&relay, json!({"type": "Register"}), 401).await;
    tokens.reload(&relay).await;
    relay.advance(59);
    let device = Device::register(&relay, resumable_with("acme")).await;
    relay.advance(1);
    assert_denied(&refused(&relay, with_token("acme"), 401).await);
    let token = device.token();
    drop(device);
    Device::resume(&relay, &token).await;
}

#[tokio::test]
async fn the_devices_of_a_token_are_bounded_and_each_that_ends_makes_room() {
    let tokens = Tokens::bounded("acme", devices(2));
    tokens.add("other", None, Bounds::default());
    let relay = tokens.relay();
    let mut resumable = Device::register(&relay, resumable_with("acme")).await;
    let plain = Device::register(&relay, with_token("acme")).await;
    let error = refused(&relay, with_token("acme"), 403).await;
    let expected = "The access token has all the devices that it may have.";
    assert_eq!((&error["message"], &error["limit"]), (&json!(expected), &json!("devices")));
    Device::register(&relay, with_token("other")).await;
    // A plain device cannot come back: it ends with its connection.
    plain.leave(&relay).await;
    let second = Device::register(&relay, resumable_with("acme")).await;
    // A resumable one is alive while it is away.
    second.disconnect(&relay).await;
    refused(&relay, with_token("acme"), 403).await;
    resumable.send(json!({"type": "Unregister"})).await;
    resumable.expect_closed_with(1000).await;
    Device::register(&relay, with_token("acme")).await;
    // A bound that shrinks ends nobody, and one that grows lets more in.
    tokens.replace("acme", devices(1));
    tokens.reload(&relay).await;
    refused(&relay, with_token("acme"), 403).await;
    tokens.replace("acme", devices(3));
    tokens.reload(&relay).await;
    Device::register(&relay, with_token("acme")).await;
}

#[tokio::test]
async fn a_token_may_have_a_rate_of_its_own_for_each_of_its_devices() {
    let rate = |rate| Bounds { messages_per_minute: NonZeroU32::new(rate), ..Bounds::default() };
    let tokens = Tokens::bounded("acme", rate(2));
    tokens.add("other", None, Bounds::default());
    let relay = tokens.relay();
    let limits = |device: &Device| {
        let limits = &device.registration["limits"];
        [limits["messages_per_minute"].clone(), limits["burst"].clone()]
    };
    let mut alice = Device::register(&relay, with_token("acme")).await;
    let mut bob = Device::register(&relay, with_token("acme")).await;
    let other = Device::register(&relay, with_token("other")).await;
    assert_eq!((limits(&alice), limits(&other)), ([json!(2), json!(2)], [json!(60), json!(60)]));
    for (one, another) in [(&mut alice, &bob.id.clone()), (&mut bob, &other.id)] {
        one.set_status("Online").await;
        one.set_status("Online").await;
        let frame = one.message_to(another, 1, json!({}));
        let error = one.expect_refusal(frame, 429).await;
        assert_eq!(error["message"], "Rate limit exceeded (2/2). Try again in a minute.");
    }
    tokens.replace("acme", rate(5));
    tokens.reload(&relay).await;
    for _ in 0..5 {
        alice.set_status("Online").await;
    }
    let frame = alice.message_to(&bob.id, 2, json!({}));
    assert_eq!(alice.expect_refusal(frame, 429).await["limit"], 5);
    assert_eq!(limits(&Device::register(&relay, with_token("acme")).await), [json!(5), json!(5)]);
    // Who loses a token gains nothing by it.
    remove(&tokens.path, "acme").expect("it was there");
    tokens.reload(&relay).await;
    let frame = alice.message_to(&bob.id, 3, json!({}));
    assert_eq!(alice.expect_refusal(frame, 429).await["limit"], 5);
    tokens.add("acme", None, rate(5));
    tokens.reload(&relay).await;
    // The general rate is that of tokens without one of their own.
    let mut settings = relay.settings.clone();
    settings.rate_limit.messages_per_minute = NonZeroU32::new(7).expect("not zero");
    relay.reload_handle.reload(&settings);
    let fresh = ["acme", "other"].map(|name| Device::register(&relay, with_token(name)));
    let [acme, other] = fresh;
    assert_eq!(limits(&acme.await), [json!(5), json!(5)]);
    assert_eq!(limits(&other.await), [json!(7), json!(60)]);
}

#[tokio::test]
async fn what_the_devices_of_a_token_have_waiting_is_bounded_and_what_passes_through_is_not() {
    let bounds = Bounds { queued_bytes: Some(3_000), ..Bounds::default() };
    let tokens = Tokens::bounded("acme", bounds);
    tokens.add("other", None, Bounds::default());
    let relay = tokens.generous_relay();
    let mut alice = Device::register(&relay, with_token("acme")).await;
    let mut anna = Device::register(&relay, with_token("acme")).await;
    let mut other = Device::register(&relay, with_token("other")).await;
    let bob = Device::register(&relay, resumable_with("other")).await.disconnect(&relay).await;
    // About 1,500 bytes each: one of each device fits.
    let body = json!({"encrypted_data": "e".repeat(1_000)});
    for (number, device) in [(1, &mut alice), (2, &mut anna)] {
        device.send_message(&bob.id, number, body.clone()).await;
        device.expect_ack(number).await;
    }
    let frame = alice.message_to(&bob.id, 3, body.clone());
    let error = alice.expect_refusal(frame.clone(), 403).await;
    let expected = "The access token has all the bytes waiting that it may have.";
    assert_eq!((&error["message"], &error["limit"]), (&json!(expected), &json!("queued_bytes")));
    assert_eq!(error["recipient_id"], json!(bob.id));
    other.send_message(&bob.id, 4, body.clone()).await;
    other.expect_ack(4).await;
    // To a plain device that is there the message passes through.
    alice.send_message(&other.id, 5, body.clone()).await;
    alice.expect_ack(5).await;
    other.receive(5).await;
    let mut bob = bob.reconnect(&relay).await;
    bob.receive_and_ack(1).await;
    bob.receive(2).await;
    bob.receive(4).await;
    bob.expect_nothing().await;
    alice.send(frame).await;
    alice.expect_ack(3).await;
}

#[tokio::test]
async fn refused_tokens_are_limited_by_address_and_a_good_one_never_is() {
    let tokens = Tokens::of(&["acme"]);
    let relay = tokens.relay();
    let mut guesser = Device::connect(&relay).await;
    // Who has none guesses nothing.
    for _ in 0..20 {
        assert_denied(&guesser.expect_refusal(json!({"type": "Register"}), 401).await);
    }
    for _ in 0..10 {
        assert_denied(&guesser.expect_refusal(with_token("nobody"), 401).await);
    }
    let error = guesser.expect_refusal(with_token("nobody"), 429).await;
    assert_eq!((&error["limit"], &error["retry_after_ms"]), (&json!(10), &json!(6_000)));
    // Wrong resume tokens are counted with them.
    let resume = json!({"type": "Register", "payload": {"resume_token": "wrong"}});
    guesser.expect_refusal(resume, 429).await;
    let mut elsewhere = Device::connect_from(&relay, 2).await;
    assert_denied(&elsewhere.expect_refusal(with_token("nobody"), 401).await);
    guesser.send(with_token("acme")).await;
    guesser.expect_frame("RegisterResponse").await;
    relay.advance(60);
    assert_denied(&refused(&relay, with_token("nobody"), 401).await);
}

#[tokio::test]
async fn a_reload_closes_an_open_relay_and_opens_a_closed_one() {
    let tokens = Tokens::of(&["acme"]);
    let relay = Relay::start();
    let before = Device::resumable(&relay).await;
    let mut settings = relay.settings.clone();
    tokens.apply(&mut settings);
    relay.reload_handle.reload(&settings);
    assert_denied(&refused(&relay, json!({"type": "Register"}), 401).await);
    Device::register(&relay, with_token("acme")).await;
    before.reconnect(&relay).await;
    relay.reload_handle.reload(&relay.settings);
    Device::plain(&relay).await;
}
