use super::*;
use crate::protocol::envelope::Subject;

const ALICE: &str = "d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d";
const BOB: &str = "a1b2c3d4-e5f6-7890-1234-567890abcdef";
const MESSAGE: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";

fn send_with(field: &str) -> String {
    format!(
        r#"{{"recipient_id":"{BOB}","sender_id":"{ALICE}","encrypted_data":"e==","message_id":"{MESSAGE}"{field}}}"#
    )
}

fn ttl_of(field: &str) -> Result<Option<u64>, Refusal> {
    let text = format!(r#"{{"type":"Send","payload":{}}}"#, send_with(field));
    decode(&text).map(|frame| match frame {
        ClientFrame::Send(send) => send.ttl,
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_send_keeps_its_payload_byte_for_byte_in_either_key_order() {
    let payload = send_with(r#", "timestamp" : 1678886400,"x":[1, {"y":1e400}],"ttl":300"#);
    for text in [
        format!(r#"{{"type":"Send","payload":{payload}}}"#),
        format!(r#"{{ "payload" : {payload} , "other":1, "type":"Send" }}"#),
    ] {
        let ClientFrame::Send(send) = decode(&text).unwrap() else { panic!() };
        assert_eq!(send.payload, payload);
        assert_eq!(send.ttl, Some(300));
        assert_eq!(send.encrypted_data, r#""e==""#);
        assert_eq!(send.sender_id, DeviceId::parse(ALICE).unwrap());
        assert_eq!(send.recipient_id, Recipient::parse(BOB).unwrap());
        assert_eq!(send.message_id, MessageId::parse(MESSAGE).unwrap());
    }
}

#[test]
fn a_ttl_is_whole_seconds_and_saturates() {
    assert_eq!(ttl_of(""), Ok(None));
    assert_eq!(ttl_of(r#","ttl":null"#), Ok(None));
    assert_eq!(ttl_of(r#","ttl":0"#), Ok(Some(0)));
    assert_eq!(ttl_of(r#","ttl":18446744073709551615"#), Ok(Some(u64::MAX)));
    assert_eq!(ttl_of(r#","ttl":99999999999999999999"#), Ok(Some(u64::MAX)));
    for wrong in ["-1", "1.5", "\"300\"", "3e2", "1e400", "true", "[1]", "{}"] {
        assert_eq!(
            ttl_of(&format!(r#","ttl":{wrong}"#)),
            Err(Refusal::Wrong(Kind::Send, "ttl", "a whole number of seconds, 0 or more")),
            "{wrong}"
        );
    }
}

#[test]
fn absent_null_and_empty_payloads_are_one_thing() {
    for payload in ["", r#","payload":null"#, r#","payload":{}"#, r#","payload":{ }"#] {
        let frame = |kind: &str| format!(r#"{{"type":"{kind}"{payload}}}"#);
        assert_eq!(decode(&frame("Ping")), Ok(ClientFrame::Ping));
        assert_eq!(decode(&frame("Pong")), Ok(ClientFrame::Pong));
        assert_eq!(decode(&frame("Register")), Ok(ClientFrame::Register(Register::default())));
    }
    for payload in ["", r#","payload":null"#] {
        let text = format!(r#"{{"type":"Send"{payload}}}"#);
        assert_eq!(decode(&text), Err(Refusal::Missing(Kind::Send, "payload")));
    }
    let empty = r#"{"type":"Send","payload":{}}"#;
    assert_eq!(decode(empty), Err(Refusal::Missing(Kind::Send, "recipient_id")));
}

#[test]
fn a_payload_of_another_shape_is_refused() {
    for payload in ["1", "[]", "\"\"", "true"] {
        let text = format!(r#"{{"type":"Ping","payload":{payload}}}"#);
        assert_eq!(decode(&text), Err(Refusal::Wrong(Kind::Ping, "payload", "an object")));
    }
}

#[test]
fn register_reads_its_extensions() {
    let text = r#"{"type":"Register","payload":{"resumable":true,"resume_token":"ab","new":1}}"#;
    let ClientFrame::Register(register) = decode(text).unwrap() else { panic!() };
    assert!(register.extended && register.resumable && !register.receipts);
    assert_eq!(register.resume_token.as_deref(), Some("ab"));
    assert_eq!(
        decode(r#"{"type":"Register","payload":{"resumable":1}}"#),
        Err(Refusal::Wrong(Kind::Register, "resumable", "true or false"))
    );
}

#[test]
fn types_are_exact_and_types_of_the_relay_are_refused() {
    assert_eq!(decode(r#"{"type":"send"}"#), Err(Refusal::UnknownType));
    assert_eq!(decode(r#"{"type":"Ping "}"#), Err(Refusal::UnknownType));
    assert_eq!(decode(r#"{"type":1}"#), Err(Refusal::NotAnObject));
    assert_eq!(decode(r#"{"payload":{}}"#), Err(Refusal::NotAnObject));
    assert_eq!(decode(r#"{"type":"P\u0069ng"}"#), Ok(ClientFrame::Ping));
    for name in ["RegisterResponse", "Receive", "Error"] {
        assert_eq!(decode(&format!(r#"{{"type":"{name}"}}"#)), Err(Refusal::ServerOnly(name)));
    }
}

#[test]
fn a_key_that_occurs_twice_is_named_if_the_protocol_has_it() {
    assert_eq!(decode(r#"{"type":"Ping","type":"Ping"}"#), Err(Refusal::Twice(Some("type"))));
    assert_eq!(
        decode(r#"{"type":"Ack","payload":{"message_id":1,"message_id":1}}"#),
        Err(Refusal::Twice(Some("message_id")))
    );
    assert_eq!(decode(r#"{"type":"Ping","x":1,"x":1}"#), Err(Refusal::Twice(None)));
}

#[test]
fn opaque_strings_are_strings_and_are_not_decoded() {
    let lone = r#"{"type":"AuthVerify","payload":{"device_id":"d8f8a9b0-f6e1-4a2b-8d7c-1e9f0a1b2c3d","challenge_response":"\ud800 \u0000 not base64"}}"#;
    assert!(matches!(decode(lone), Ok(ClientFrame::Auth(Auth { step: AuthStep::Verify, .. }))));
    let number = lone.replace(r#""\ud800 \u0000 not base64""#, "5");
    assert_eq!(
        decode(&number),
        Err(Refusal::Wrong(Kind::AuthVerify, "challenge_response", "a string"))
    );
    assert_eq!(
        decode(r#"{"type":"AuthRequest","payload":{"public_key":"p"}}"#),
        Err(Refusal::Missing(Kind::AuthRequest, "challenge"))
    );
}

#[test]
fn a_key_id_is_any_number_or_string() {
    for (key_id, fine) in
        [("1678886401", true), ("-1.5e9", true), ("\"k\"", true), ("true", false), ("[1]", false)]
    {
        let text = format!(
            r#"{{"type":"KeyRotationAck","payload":{{"sender_id":"{ALICE}","recipient_id":"{BOB}","key_id":{key_id},"success":false}}}}"#
        );
        assert_eq!(decode(&text).is_ok(), fine, "{key_id}");
    }
}

#[test]
fn a_key_id_has_at_most_256_bytes_as_written() {
    for kind in [Kind::KeyRotationUpdate, Kind::KeyRotationAck] {
        for (key_id, bytes) in [
            (format!("\"{}\"", "k".repeat(254)), 256),
            (format!("\"{}\"", "k".repeat(255)), 257),
            (format!("\"{}\"", "é".repeat(127)), 256),
            // 43 letters, in 260 bytes.
            (format!("\"{}\"", "\\u0041".repeat(43)), 260),
            ("7".repeat(256), 256),
            ("7".repeat(257), 257),
        ] {
            assert_eq!(key_id.len(), bytes);
            let text = format!(
                r#"{{"type":"{}","payload":{{"sender_id":"{ALICE}","recipient_id":"{BOB}","key_id":{key_id},"success":true,"encrypted_key_package":""}}}}"#,
                kind.name()
            );
            let too_long = Refusal::Wrong(kind, "key_id", "at most 256 bytes long as written");
            assert_eq!(decode(&text).err(), (bytes > 256).then_some(too_long), "{key_id}");
            let context = error_context(&text, too_long);
            assert_eq!(context.key_id.is_some(), bytes <= 256);
        }
    }
}

#[test]
fn a_status_is_one_of_three_values() {
    let status = |value: &str| {
        decode(&format!(
            r#"{{"type":"Status","payload":{{"device_id":"{ALICE}","status":{value}}}}}"#
        ))
        .map(|_| ())
    };
    assert_eq!(status("\"Away\""), Ok(()));
    assert_eq!(status(r#""\u0041way""#), Ok(()));
    assert_eq!(status("null"), Err(Refusal::Missing(Kind::Status, "status")));
    for wrong in ["\"online\"", "1", "\"\""] {
        assert_eq!(
            status(wrong),
            Err(Refusal::Wrong(Kind::Status, "status", "Online, Away or Offline"))
        );
    }
}

#[test]
fn depth_is_counted_from_the_envelope_wherever_it_stands() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for (levels, fine) in [(127, true), (128, false)] {
        assert_eq!(decode(&format!(r#"{{"type":"Ping","x":{}}}"#, deep(levels))).is_ok(), fine);
        let payload = format!(r#"{{"type":"Ping","payload":{{"x":{}}}}}"#, deep(levels - 1));
        assert_eq!(decode(&payload).is_ok(), fine, "{levels}");
    }
}

#[test]
fn the_error_context_of_a_malformed_frame_has_the_ids_that_can_be_read() {
    let context_of_send = |field: &str| {
        let text = format!(r#"{{"payload":{},"type":"Send"}}"#, send_with(field));
        error_context(&text, decode(&text).unwrap_err())
    };
    let (message, bob) = (MessageId::parse(MESSAGE).unwrap(), Recipient::parse(BOB).unwrap());
    assert_eq!(
        context_of_send(r#","ttl":-1"#),
        ErrorContext::about(Some(&Subject::Message(message)), Some(bob))
    );
    assert_eq!(context_of_send(r#","message_id":"other""#), ErrorContext::NOTHING);
    let text = r#"{"type":"KeyRotationAck","payload":{"key_id":7,"recipient_id":5}}"#;
    let key_context = error_context(text, decode(text).unwrap_err());
    assert_eq!((key_context.key_id.as_deref(), key_context.recipient_id), (Some("7"), None));
    assert_eq!(error_context("{", Refusal::NotAnObject), ErrorContext::NOTHING);
}

/// `split_common_envelope` must never change the result of `decode`, for any change of one place in a frame.
#[test]
fn the_common_envelope_is_decoded_like_any_other() {
    let frame = format!(r#"{{"type":"Send","payload":{}}}"#, send_with(r#","ttl":300"#));
    let spaced = frame.replace(':', " : ").replace('{', "\t{\n").replace('}', "\r} ");
    for frame in [frame, spaced] {
        assert!(
            split_common_envelope(&frame)
                .is_some_and(|(kind, payload)| decode_payload(kind, payload).is_ok())
        );
        for place in 0..frame.len() {
            let (before, after) = frame.split_at(place);
            for text in
                ["", " ", "\u{c}", "{", "}", "\"", ",", ":", "\\", "{}", ",\"x\":{}", "\u{feff}"]
            {
                for changed in
                    [[before, text, after].concat(), [before, text, &after[1..]].concat()]
                {
                    assert_eq!(decode(&changed), decode_any(&changed), "{changed}");
                }
            }
        }
    }
}
