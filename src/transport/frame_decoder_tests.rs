use super::*;

fn decoder() -> FrameDecoder {
    FrameDecoder::new(&Limits { message_bytes: 1000, fragments: 4, ..Limits::default() })
}

/// One masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
    }
    let mask = [0x12, 0x34, 0x56, 0x78];
    out.extend(mask);
    out.extend(payload.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
    out
}

/// Decodes all pieces from the start: the frames that ended, and the violation if there is one.
fn run<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Decoded>, Option<ProtocolViolation>) {
    let (mut decoder, mut ended) = (decoder(), Vec::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            match decoder.decode(&mut piece) {
                Ok(decoded) => ended.extend(decoded),
                Err(violation) => return (ended, Some(violation)),
            }
        }
    }
    (ended, None)
}

/// The verdict must not depend on how the bytes are cut: whole, byte by byte, and in two at
/// every place.
fn outcome(bytes: &[u8]) -> (Vec<Decoded>, Option<ProtocolViolation>) {
    let whole = run([bytes]);
    assert_eq!(run(bytes.chunks(1)), whole, "byte by byte");
    for at in 1..bytes.len() {
        let (a, b) = bytes.split_at(at);
        assert_eq!(run([a, b]), whole, "cut at {at}");
    }
    whole
}

#[test]
fn lets_a_lawful_conversation_through() {
    let wire = [
        frame(FIN | TEXT, "grüße".as_bytes()),
        frame(FIN | BINARY, &[0xff; 300]),
        frame(TEXT, b"\xe2\x82"),
        frame(FIN | PING, b"now"),
        frame(CONTINUATION, b"\xac"),
        frame(FIN | CONTINUATION, b""),
        frame(FIN | CLOSE, &1000u16.to_be_bytes()),
    ]
    .concat();
    assert_eq!(
        outcome(&wire),
        (
            vec![
                Decoded::Text("grüße".into()),
                Decoded::Binary(vec![0xff; 300].into()),
                Decoded::Fragment,
                Decoded::Ping(Bytes::from_static(b"now")),
                Decoded::Fragment,
                Decoded::Text("€".into()),
                Decoded::Close(Bytes::from_static(b"\x03\xe8")),
            ],
            None
        )
    );
}

#[test]
fn refuses_what_rfc_6455_section_5_forbids() {
    let mut unmasked = frame(FIN | TEXT, b"a");
    unmasked[1] &= 0x7f;
    let long_ping = frame(FIN | PING, &[0; 126]);
    let cases: [(&str, Vec<u8>); 9] = [
        ("reserved bit", frame(FIN | 0x40 | TEXT, b"a")),
        ("opcode 3", frame(FIN | 0x3, b"a")),
        ("opcode 11", frame(FIN | 0xB, b"a")),
        ("unmasked", unmasked),
        ("long control frame", long_ping),
        ("fragmented control frame", frame(PING, b"")),
        ("continuation of nothing", frame(FIN | CONTINUATION, b"a")),
        ("new message inside another", [frame(TEXT, b"a"), frame(FIN | TEXT, b"b")].concat()),
        ("length with its highest bit set", vec![FIN | BINARY, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (name, wire) in cases {
        assert_eq!(outcome(&wire).1, Some(ProtocolViolation::Protocol), "{name}");
    }
}

#[test]
fn refuses_a_length_before_its_payload_and_even_its_mask() {
    let huge = [FIN | BINARY, 0xff, 0, 0, 1, 0, 0, 0, 0, 0];
    assert_eq!(outcome(&huge).1, Some(ProtocolViolation::TooBig));
    assert_eq!(outcome(&frame(FIN | TEXT, &[b'a'; 1000])).1, None);
    assert_eq!(outcome(&[FIN | TEXT, 0x80 | 126, 0x03, 0xe9]).1, Some(ProtocolViolation::TooBig));
}

#[test]
fn counts_fragments_together() {
    let half = frame(TEXT, &[b'a'; 500]);
    let fits = [half.clone(), frame(FIN | CONTINUATION, &[b'a'; 500])].concat();
    assert_eq!(outcome(&fits).1, None);
    let over = [half, frame(FIN | CONTINUATION, &[b'a'; 501])].concat();
    assert_eq!(outcome(&over).1, Some(ProtocolViolation::TooBig));

    let empty = frame(CONTINUATION, b"");
    let four = [frame(BINARY, b""), empty.repeat(3)].concat();
    assert_eq!(outcome(&four).1, None);
    let five = [four, empty].concat();
    assert_eq!(outcome(&five).1, Some(ProtocolViolation::TooManyFragments));
}

#[test]
fn judges_fragmented_text_as_it_arrives() {
    // The third byte shows that this is a surrogate half, long before the message ends.
    let start = frame(TEXT, b"ok \xed\xa0");
    assert_eq!(outcome(&start).1, Some(ProtocolViolation::NotUtf8));
    let cut = [frame(TEXT, b"\xe2"), frame(FIN | CONTINUATION, b"\x82")].concat();
    assert_eq!(outcome(&cut).1, Some(ProtocolViolation::NotUtf8));
    // Binary data is not checked.
    assert_eq!(outcome(&frame(BINARY, b"\xff\xff")).1, None);
}

#[test]
fn judges_text_that_arrives_in_pieces_before_its_frame_ends() {
    let wire = frame(FIN | TEXT, b"abc\xf4\x90 and so on");
    let mut decoder = decoder();
    // Six bytes of header, then the payload up to the second byte of the impossible character.
    assert!(decoder.decode(&mut &wire[..9]).is_ok());
    assert_eq!(decoder.decode(&mut &wire[9..11]), Err(ProtocolViolation::NotUtf8));
}

#[test]
fn knows_what_is_unfinished() {
    let mut decoder = decoder();
    assert!(!decoder.unfinished());
    for byte in frame(TEXT, b"abc") {
        decoder.decode(&mut &[byte][..]).expect("lawful");
        assert!(decoder.unfinished());
    }
    for byte in frame(FIN | PING, b"") {
        decoder.decode(&mut &[byte][..]).expect("lawful");
        assert!(decoder.unfinished(), "the message around the ping goes on");
    }
    decoder.decode(&mut &frame(FIN | CONTINUATION, b"")[..]).expect("lawful");
    assert!(!decoder.unfinished());
}
