//! Hostile frames: each gets an Error 400, or is forwarded unchanged where it is opaque; the connection stays open.
//! (threats: T34–T36)

use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::HashMap;

use crate::support::{Device, Relay, message_id};

const NO_OBJECT: &str = "Malformed message: not a JSON object with a type.";

/// Each text is refused with the sentence, and the connection stays open.
async fn are_refused(cases: &[(&str, &str)]) {
    let relay = Relay::start();
    let mut alice = Device::plain(&relay).await;
    for (text, sentence) in cases {
        alice.send_text(text).await;
        let error = alice.expect_error(400).await;
        assert_eq!(error["message"], *sentence, "{:.200}", text);
        alice.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_text_that_is_no_json_object_with_a_type_is_refused() {
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let open = "{\"type\":".repeat(7_000);
    are_refused(&[
        ("", NO_OBJECT),
        (" ", NO_OBJECT),
        ("null", NO_OBJECT),
        ("7", NO_OBJECT),
        ("\"Ping\"", NO_OBJECT),
        ("[\"Ping\"]", NO_OBJECT),
        ("[\"Ping\",{}]", NO_OBJECT),
        ("[{\"type\":\"Ping\"}]", NO_OBJECT),
        ("{}", NO_OBJECT),
        ("{\"type\":null}", NO_OBJECT),
        ("{\"type\":[\"Ping\"]}", NO_OBJECT),
        ("{\"type\":{\"Ping\":1}}", NO_OBJECT),
        ("{\"type\":\"Ping\"", NO_OBJECT),
        ("{\"type\":\"Ping\",}", NO_OBJECT),
        ("{type:\"Ping\"}", NO_OBJECT),
        ("{'type':'Ping'}", NO_OBJECT),
        ("{\"type\":\"Ping\"} x", NO_OBJECT),
        ("{\"type\":\"Ping\"}\u{0}", NO_OBJECT),
        ("{\"type\":\"Ping\"}{\"type\":\"Ping\"}", NO_OBJECT),
        ("{\"type\":\"Ping\"}\n{\"type\":\"Ping\"}", NO_OBJECT),
        ("\u{feff}{\"type\":\"Ping\"}", NO_OBJECT),
        ("{\"type\":\"Ping\"} // a note", NO_OBJECT),
        ("{\"type\":\"Ping\",\"x\":NaN}", NO_OBJECT),
        ("{\"type\":\"Ping\",\"x\":Infinity}", NO_OBJECT),
        ("{\"type\":\"Ping\",\"x\":01}", NO_OBJECT),
        ("{\"type\":\"Ping\",\"x\":\"\n\"}", NO_OBJECT),
        ("{\"\u{1}\":1,\"type\":\"Ping\"}", NO_OBJECT),
        ("{\"\\ud800\u{1}\":1,\"type\":\"Ping\"}", NO_OBJECT),
        ("{\"\\ud80\":1,\"type\":\"Ping\"}", NO_OBJECT),
        ("{\"type\":\"Pi\\ng\"}", "Unknown message type."),
        ("{\"type\":\"\\ud800\"}", "Unknown message type."),
        (&deep, NO_OBJECT),
        (&open, NO_OBJECT),
    ])
    .await;
}

#[tokio::test]
async fn an_unknown_type_is_refused() {
    let long = format!("{{\"type\":\"{}\"}}", "P".repeat(60_000));
    let unknown = "Unknown message type.";
    are_refused(&[
        ("{\"type\":\"ping\"}", unknown),
        ("{\"type\":\"PING\"}", unknown),
        ("{\"type\":\"\"}", unknown),
        ("{\"type\":\"Ping \"}", unknown),
        ("{\"type\":\"Ping\\u0000\"}", unknown),
        ("{\"type\":\"Ρing\"}", unknown),
        ("{\"type\":\"\\r\\n\\u001b[31mFORGED\"}", unknown),
        (&long, unknown),
    ])
    .await;
}

#[tokio::test]
async fn a_key_that_comes_twice_is_refused() {
    let twice = |key: &str| format!("Malformed message: the key {key} appears twice.");
    let (twice_type, twice_payload, twice_id) =
        (twice("type"), twice("payload"), twice("message_id"));
    let unknown = "Malformed message: a key appears twice.";
    are_refused(&[
        ("{\"type\":\"Ping\",\"type\":\"Ping\"}", &twice_type),
        ("{\"type\":\"Ping\",\"t\\u0079pe\":\"Send\"}", &twice_type),
        ("{\"payload\":{},\"type\":\"Ping\",\"payload\":{}}", &twice_payload),
        ("{\"type\":\"Ping\",\"x-a\":1,\"x-a\":1}", unknown),
        ("{\"type\":\"Ping\",\"payload\":{\"x-a\":1,\"x-b\":2,\"x-a\":1}}", unknown),
        ("{\"type\":\"Ack\",\"payload\":{\"message_id\":1,\"message_id\":1}}", &twice_id),
    ])
    .await;
}

#[tokio::test]
async fn a_payload_of_another_shape_is_refused() {
    let must = |kind: &str| format!("Malformed message: payload of {kind} must be an object.");
    let (send, ping, ack) = (must("Send"), must("Ping"), must("Ack"));
    are_refused(&[
        ("{\"type\":\"Send\",\"payload\":[]}", &send),
        ("{\"type\":\"Ping\",\"payload\":[]}", &ping),
        ("{\"type\":\"Ping\",\"payload\":0}", &ping),
        ("{\"type\":\"Ack\",\"payload\":[\"f47ac10b-58cc-4372-a567-0e02b2c3d479\"]}", &ack),
        ("{\"type\":\"Send\"}", "Malformed message: Send needs the field payload."),
        (
            "{\"type\":\"Send\",\"payload\":null}",
            "Malformed message: Send needs the field payload.",
        ),
        (
            "{\"type\":\"Send\",\"payload\":{}}",
            "Malformed message: Send needs the field recipient_id.",
        ),
    ])
    .await;
}

#[tokio::test]
async fn an_id_has_one_spelling() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let id = bob.id.clone();
    let spellings = [
        String::new(),
        id.replace('-', ""),
        format!("{{{id}}}"),
        format!("urn:uuid:{id}"),
        format!(" {id}"),
        format!("{id} "),
        format!("{id}\u{0}"),
        id[..35].to_owned(),
        format!("{}\u{ff11}", &id[..33]),
        format!("{}\u{0661}", &id[..34]),
        format!("g{}", &id[1..]),
        format!("+{}", &id[1..]),
        id.replace('-', "\u{2010}"),
        "00000000-0000-0000-0000-000000000000".to_owned(),
    ];
    for spelling in spellings {
        let frame = alice.message_to(&spelling, 1, json!({}));
        let error = alice.expect_refusal(frame, 400).await;
        let expected = "Malformed message: recipient_id of Send must be a UUID other than nil.";
        assert_eq!(error["message"], expected, "{spelling}");
    }
    for wrong in [json!(1), json!([id]), json!({"id": id}), json!(true)] {
        let frame = alice.message_to(&id, 1, json!({"recipient_id": wrong}));
        alice.expect_refusal(frame, 400).await;
    }
    bob.expect_nothing().await;
    // An id written with escapes is the same text.
    let text = alice.message_to("WHO", 1, json!({})).to_string();
    let escaped: String = id.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    alice.send_text(&text.replace("WHO", &escaped)).await;
    alice.expect_ack(1).await;
    bob.receive(1).await;
}

#[tokio::test]
async fn fields_of_the_wrong_kind_are_named() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    for (field, value, reason) in [
        ("encrypted_data", json!({"c": 1}), "encrypted_data of Send must be a string"),
        ("encrypted_data", json!(null), "Send needs the field encrypted_data"),
        ("signature", json!(1), "signature of Send must be a string"),
        ("signature", json!([]), "signature of Send must be a string"),
        ("message_id", json!("x"), "message_id of Send must be a UUID other than nil"),
        ("message_id", json!(null), "Send needs the field message_id"),
        ("sender_id", json!(""), "sender_id of Send must be a UUID other than nil"),
    ] {
        let frame = alice.message_to(&bob.id, 1, json!({field: value}));
        let error = alice.expect_refusal(frame, 400).await;
        assert_eq!(error["message"], format!("Malformed message: {reason}."));
        let named = (field != "message_id").then(|| json!(message_id(1)));
        assert_eq!(error.get("message_id"), named.as_ref(), "{field}");
        assert_eq!(error["recipient_id"], json!(bob.id));
    }
    bob.expect_nothing().await;
}

/// Sends a frame and returns whether it was forwarded, byte for byte; otherwise it was refused with 400.
async fn is_carried(alice: &mut Device, bob: &mut Device, text: &str) -> bool {
    alice.send_text(text).await;
    let answer = alice.receive_any().await;
    if answer["type"] == "Error" {
        assert_eq!(answer["payload"]["code"], 400, "{answer}");
        bob.expect_nothing().await;
        return false;
    }
    assert_eq!(answer["type"], "Ack", "{answer}");
    let received = bob.receive_text().await;
    let payload_of = |text: &str| {
        let frame: HashMap<String, Box<RawValue>> = serde_json::from_str(text).expect("JSON");
        frame["payload"].get().to_owned()
    };
    assert_eq!(payload_of(&received), payload_of(text));
    true
}

#[tokio::test]
async fn opaque_fields_are_forwarded_unchanged() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let opaque = [
        (r#""x""#, r#""\ud800""#),
        (r#""x""#, r#""\udc00\ud800 and \u0000 and \u202e""#),
        (r#""x""#, "\"\u{202e}\u{200b}\u{7f} 💌 \""),
        (r#""x""#, r#""not base64 at all!""#),
        (r#""x","x-extra":0"#, r#""x","x-extra":1e400"#),
        (r#""x","x-extra":0"#, r#""x","x-extra":-0.000e-999"#),
        (r#""x","x-extra":0"#, r#""x"  ,	"x-extra" : {"type":"Error","a":[1,2.50,null]} "#),
        (r#""x","x-extra":0"#, r#""x","x-extra":{"a":1,"a":2}"#),
        (r#""x","x-extra":0"#, r#""x","timestamp":"yesterday","size_bytes":-1,"content_type":[7]"#),
        (r#""x","x-extra":0"#, r#""x","signature":null"#),
    ];
    for (nth, (plain, other)) in opaque.iter().enumerate() {
        let number = u64::try_from(nth).expect("few");
        let text = alice.message_to(&bob.id, number, json!({"encrypted_data": "x"})).to_string();
        let data = plain.split(',').next().expect("the data");
        let text = text
            .replace(&format!("\"encrypted_data\":{data}"), &format!("\"encrypted_data\":{other}"));
        assert!(text.contains(other), "{text}");
        assert!(is_carried(&mut alice, &mut bob, &text).await, "{text}");
    }
}

#[tokio::test]
async fn a_lone_surrogate_in_an_unknown_key_is_carried() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let keys = [r"\ud800", r"\uDFFF x", r"a\ud83d", r"\ud800\ud800\udc00", r"\ud800\n"];
    for (number, key) in (1..).zip(keys) {
        let frame = alice.message_to(&bob.id, number, json!({"x-extra": {"x-inner": 1}}));
        let payload = frame["payload"].to_string().replace("x-extra", key).replace("x-inner", key);
        alice.send_text(&format!("{{\"{key}\":0,\"type\":\"Send\",\"payload\":{payload}}}")).await;
        alice.expect_ack(number).await;
        assert_eq!(
            bob.receive_text().await,
            format!("{{\"type\":\"Receive\",\"payload\":{payload}}}")
        );
        let twice = format!("{{\"\\u0078{key}\":0,\"x{key}\":0,\"type\":\"Ping\"}}");
        alice.send_text(&twice).await;
        let error = alice.expect_error(400).await;
        assert_eq!(error["message"], "Malformed message: a key appears twice.");
    }
}

#[tokio::test]
async fn nesting_is_carried_to_128_levels_and_no_deeper() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let text_of = |alice: &Device, bob: &Device, open: &str, close: &str, levels: usize| {
        let number = u64::try_from(levels).expect("few");
        let text = alice.message_to(&bob.id, number, json!({"x-deep": 0})).to_string();
        let deep = format!("{}1{}", open.repeat(levels), close.repeat(levels));
        text.replace("\"x-deep\":0", &format!("\"x-deep\":{deep}"))
    };
    // The envelope is the first level, the payload the second.
    for (levels, carried) in [(126, true), (127, false), (128, false), (30_000, false)] {
        let text = text_of(&alice, &bob, "[", "]", levels);
        assert_eq!(is_carried(&mut alice, &mut bob, &text).await, carried, "{levels}");
    }
    for (levels, carried) in [(125, true), (129, false), (9_000, false)] {
        let text = text_of(&alice, &bob, "{\"a\":", "}", levels);
        assert_eq!(is_carried(&mut alice, &mut bob, &text).await, carried, "{levels}");
    }
    // Brackets inside a string nest nothing.
    let text =
        alice.message_to(&bob.id, 1, json!({"x-deep": "[".repeat(500) + "\\\""})).to_string();
    assert!(is_carried(&mut alice, &mut bob, &text).await);
}

#[tokio::test]
async fn the_payload_may_come_before_the_type() {
    let relay = Relay::start();
    let (mut alice, mut bob) = (Device::plain(&relay).await, Device::plain(&relay).await);
    let frame = alice.message_to(&bob.id, 1, json!({"encrypted_data": "e".repeat(60_000)}));
    let text = format!(
        "\n{{\"x-trace\":true, \"payload\" : {} ,\"type\":\"S\\u0065nd\"}} ",
        frame["payload"]
    );
    assert!(is_carried(&mut alice, &mut bob, &text).await);
}

#[tokio::test]
async fn no_error_repeats_client_input() {
    let relay = Relay::start();
    let mut alice = Device::plain(&relay).await;
    let marked = "zanzibar";
    for text in [
        format!("{{\"type\":\"{marked}\"}}"),
        format!("{{\"{marked}\":1,\"{marked}\":1,\"type\":\"Ping\"}}"),
        marked.to_owned(),
        format!("{{\"type\":\"Ack\",\"payload\":{{\"message_id\":\"{marked}\"}}}}"),
        format!(
            "{{\"type\":\"Status\",\"payload\":{{\"device_id\":\"{}\",\"status\":\"{marked}\"}}}}",
            alice.id
        ),
    ] {
        alice.send_text(&text).await;
        let answer = alice.receive_text().await;
        assert!(answer.contains("\"code\":400") && !answer.contains(marked), "{answer}");
    }
}

#[tokio::test]
async fn ten_malformed_frames_in_a_row_end_the_connection() {
    let relay = Relay::start();
    for mut device in [Device::connect(&relay).await, Device::plain(&relay).await] {
        device.send_all(vec![json!([]); 10]).await;
        for _ in 0..10 {
            device.expect_error(400).await;
        }
        assert_eq!(device.expect_close().await, Some(1008));
    }
}

#[tokio::test]
async fn a_well_formed_frame_resets_the_strikes() {
    let relay = Relay::start();
    let mut alice = Device::plain(&relay).await;
    for _ in 0..5 {
        alice.send_all(vec![json!({"type": "Nonsense"}); 9]).await;
        for _ in 0..9 {
            alice.expect_error(400).await;
        }
        alice.expect_nothing().await;
    }
    let ack = json!({"type": "Ack", "payload": {"message_id": message_id(1)}});
    let mut frames: Vec<Value> = vec![json!([]); 9];
    frames.push(ack);
    frames.extend(vec![json!([]); 9]);
    alice.send_all(frames).await;
    for _ in 0..18 {
        alice.expect_error(400).await;
    }
    alice.expect_nothing().await;
}
