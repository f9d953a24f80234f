use std::collections::HashSet;

use hickory_proto::{
    rr::{RData, RecordType},
    serialize::binary::{BinDecoder, BinEncodable, BinEncoder, Restrict},
};
use proptest::prelude::*;

use super::{Fault, Words, read, shape, types};
use crate::{wire::Name, zone::lexer::Lexer};

/// Reads `text`, which begins with the type; relative names are completed with `example.com.`
pub(super) fn read_text(text: &str) -> Result<Vec<u8>, Fault> {
    let mut tokens = Vec::new();
    Lexer::new(text, 0..text.len()).next_entry(&mut tokens).expect("the test's text has tokens");
    let rtype = types::number(tokens[0].text(text)).expect("the test names a type");
    let origin: Name = "example.com".parse().expect("valid");
    read(Words::new(text, tokens[0], &tokens[1..], rtype, &origin))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Type, text and wire form, made with another implementation.
fn vectors() -> Vec<(&'static str, &'static str, &'static str)> {
    let lines = include_str!("vectors.tsv").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut columns = line.split('\t');
            let mut next = || columns.next().expect("three columns");
            (next(), next(), next())
        })
        .collect()
}

#[test]
fn texts_become_the_wire_form_that_others_make() {
    for (rtype, text, wire) in vectors() {
        let read = read_text(&format!("{rtype} {text}")).map(|data| hex(&data));
        assert_eq!(read.as_deref(), Ok(wire), "{rtype} {text}");
    }
}

#[test]
fn every_type_with_fields_has_a_vector() {
    let tested: HashSet<u16> = vectors().iter().filter_map(|v| types::number(v.0)).collect();
    // RKEY and TA share their fields with DNSKEY and DS.
    for rtype in (0..=u16::MAX).filter(|t| shape::fields(*t).is_some() && ![57, 32768].contains(t)) {
        assert!(tested.contains(&rtype), "{}", types::Shown(rtype));
    }
}

#[test]
fn known_types_are_read_alike_from_generic_bytes() {
    for (rtype, text, wire) in vectors() {
        let generic = format!("{rtype} \\# {} {wire}", wire.len() / 2);
        assert_eq!(read_text(&generic).map(|data| hex(&data)).as_deref(), Ok(wire), "{rtype} {text}");
    }
}

#[test]
fn hickory_decodes_and_encodes_our_data_to_the_same_bytes() {
    // Types that it does not know pass as opaque bytes.
    let mut decoded = 0;
    for (rtype, text, _) in vectors() {
        let data = read_text(&format!("{rtype} {text}")).unwrap();
        let number = types::number(rtype).unwrap();
        let mut decoder = BinDecoder::new(&data);
        let parsed = RData::read(&mut decoder, RecordType::from(number), Restrict::new(data.len() as u16));
        let parsed = parsed.unwrap_or_else(|error| panic!("{rtype} {text}: {error}"));
        decoded += usize::from(!matches!(parsed, RData::Unknown { .. }));
        let mut again = Vec::new();
        let mut encoder = BinEncoder::new(&mut again);
        encoder.set_canonical_form(true);
        parsed.emit(&mut encoder).unwrap();
        assert_eq!(hex(&again), hex(&data), "{rtype} {text}");
    }
    assert!(decoded > 60, "only {decoded} types were decoded");
}

#[test]
fn names_are_lower_cased_in_generic_bytes_too() {
    assert_eq!(hex(&read_text("MX \\# 7 000a 0141 0142 00").unwrap()), "000a0161016200");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_words_of_any_type_cause_a_panic(rtype in 0u16..300, text in "[ -~]{0,60}") {
        let _ = read_any(rtype, &text);
    }

    #[test]
    fn no_bytes_of_any_type_cause_a_panic(rtype in 0u16..300, data in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = read_any(rtype, &format!("\\# {} {}", data.len(), hex(&data)));
    }

    #[test]
    fn damaged_vectors_cause_no_panic(index in 0usize..110, at in 0usize..80, byte in 0x20u8..0x7f) {
        let all = vectors();
        let (rtype, text, _) = all[index % all.len()];
        let mut text = text.as_bytes().to_vec();
        if let Some(b) = text.get_mut(at) {
            *b = byte;
        }
        let _ = read_any(types::number(rtype).unwrap(), std::str::from_utf8(&text).unwrap());
    }

    #[test]
    fn what_is_accepted_is_accepted_again_as_bytes(rtype in 0u16..300, data in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Some(Ok(first)) = read_any(rtype, &format!("\\# {} {}", data.len(), hex(&data))) {
            let second = read_any(rtype, &format!("\\# {} {}", first.len(), hex(&first)));
            prop_assert_eq!(second, Some(Ok(first)));
        }
    }
}

/// `None` when the text cannot be cut into words.
fn read_any(rtype: u16, text: &str) -> Option<Result<Vec<u8>, Fault>> {
    let text = format!("TYPE{rtype} {text}");
    let mut tokens = Vec::new();
    Lexer::new(&text, 0..text.len()).next_entry(&mut tokens).ok().flatten()?;
    let origin = Name::root();
    Some(read(Words::new(&text, tokens[0], &tokens[1..], rtype, &origin)))
}
