//! Messages as they are written and read.

use proptest::{collection::vec, option, prelude::*, sample::Index};

use super::*;

fn full() -> Message {
    Message {
        beat: Some(Beat {
            run: 7,
            seq: 3,
            beat: 9,
            targets: 2,
            version: "0.1.0".into(),
            hears: 3,
            rises: Rises { ms: [("eu".to_string(), 0), ("us".to_string(), 31)].into() },
            ..Beat::default()
        }),
        delta: Some(Delta {
            run: 7,
            seq: 3,
            views: vec![
                Observation { age_s: 40, connect_us: 12_345, ..up(0xfedc_ba98_7654_3210) },
                Observation { seen: Seen::Down, is_weak: true, doubt_ms: 2000, ..up(1) },
                Observation::nothing(2),
            ],
        }),
        ..Message::default()
    }
}

fn up(target: Identity) -> Observation {
    Observation { seen: Seen::Up, ..Observation::nothing(target) }
}

#[test]
fn the_wire_form_is_read_by_people_and_stays_what_it_is() {
    let bytes = full().encode();
    let expected = concat!(
        r#"{"v":3,"needs":1,"say":{"beat":{"run":7,"seq":3,"beat":9,"targets":2,"decisions":0,"version":"0.1.0","hears":3,"rises":{"eu":0,"us":31}},"#,
        r#""delta":{"run":7,"seq":3,"views":[{"k":"fedcba9876543210","a":40,"c":12345},"#,
        r#"{"k":"0000000000000001","s":"d","w":true,"d":2000},{"k":"0000000000000002","s":"-"}]}}}"#,
    );
    assert_eq!(std::str::from_utf8(&bytes).unwrap(), expected);
    assert_eq!(Message::decode(&bytes), Ok(full()));
}

#[test]
fn what_a_version_ahead_adds_is_left_aside() {
    let text = r#"{"v":4,"needs":1,"more":1,"say":{"song":[1],"beat":{"run":7,"seq":3,"beat":9,"tune":"a"},
        "delta":{"run":7,"seq":3,"views":[{"k":"1","s":"quite up","x":{}},{"k":"2","mood":1}]}}}"#;
    let message = Message::decode(text.as_bytes()).unwrap();
    assert_eq!(message.beat, Some(Beat { run: 7, seq: 3, beat: 9, ..Beat::default() }));
    assert_eq!(message.delta.unwrap().views, [Observation::nothing(1), up(2)]);
}

#[test]
fn what_is_too_far_ahead_is_refused_with_what_to_do() {
    let refused = Message::decode(br#"{"v":9,"needs":8,"say":"la la"}"#).unwrap_err();
    assert_eq!(refused, Unreadable::TooNew { needs: 8 });
    assert!(refused.to_string().contains("bring the servers to versions next to each other"), "{refused}");
}

#[test]
fn a_long_message_is_packed_and_read_again() {
    let views: Vec<Observation> = (0..OBSERVATIONS_AT_ONCE as u64)
        .map(|n| Observation {
            seen: Seen::Down,
            is_weak: true,
            age_s: 1_000_000_000 + n,
            connect_us: 100_000_000 + n,
            doubt_ms: 100_000 + n,
            ..up(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        })
        .collect();
    let message = Message { snapshot: Some(Snapshot { parts: 1, views, ..Snapshot::default() }), ..Message::default() };
    let bytes = message.encode();
    assert!(bytes.starts_with(&PACKED) && bytes.len() < 300_000, "{} bytes", bytes.len());
    assert_eq!(Message::decode(&bytes), Ok(message));
}

#[test]
fn garbage_is_told_from_messages() {
    let bomb = zstd::bulk::compress(&vec![b' '; BYTES_MAX + 1], 1).unwrap();
    let cut = &full().encode()[..50];
    let deep = "[".repeat(100_000);
    for bytes in [&b""[..], b"hello", b"{}", b"\x28\xb5\x2f\xfdnonsense", b"\xff\xfe", cut, &bomb, deep.as_bytes()] {
        let told = Message::decode(bytes).unwrap_err();
        assert!(matches!(told, Unreadable::Garbage(_)), "{told}");
    }
    assert_eq!(Message::decode(&vec![b' '; BYTES_MAX + 1]), Err(Unreadable::TooLarge));
}

proptest! {
    /// Whatever NATS hands on is a message or an error, and never the end of the task.
    #[test]
    fn spoilt_messages_are_messages_or_errors(
        spoilt in vec((any::<Index>(), any::<u8>()), 0..8),
        cut in option::of(any::<Index>()),
        is_packed: bool,
    ) {
        let mut bytes = full().encode();
        if is_packed {
            bytes = zstd::bulk::compress(&bytes, 1).unwrap();
        }
        for (at, byte) in spoilt {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(message) = Message::decode(&bytes) {
            let again = Message::decode(&message.encode());
            prop_assert_eq!(again, Ok(message));
        }
    }
}
