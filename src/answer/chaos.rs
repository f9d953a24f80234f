//! Class CHAOS: who the server is (RFC 4892), told only where the operator gave it an identity.

use crate::{
    routing::snapshot::Settings,
    wire::{Question, Writer, class, rtype, writer::Section},
};

const VERSION: &[u8] = concat!("isochrone ", env!("CARGO_PKG_VERSION")).as_bytes();

/// Writes the TXT record that was asked for; false when there is none.
pub fn answer(question: &Question, settings: &Settings, writer: &mut Writer) -> bool {
    let text = match question.name.as_wire() {
        b"\x02id\x06server\x00" | b"\x08hostname\x04bind\x00" => &*settings.identity,
        b"\x07version\x04bind\x00" | b"\x07version\x06server\x00" => VERSION,
        _ => return false,
    };
    if settings.identity.is_empty() || !matches!(question.qtype, rtype::TXT | rtype::ANY) {
        return false;
    }
    let mut record = [0; 12 + 1 + 255];
    let len = text.len().min(255);
    record[..2].copy_from_slice(&[0xc0, 0x0c]);
    record[2..4].copy_from_slice(&rtype::TXT.to_be_bytes());
    record[4..6].copy_from_slice(&class::CH.to_be_bytes());
    record[10..12].copy_from_slice(&(len as u16 + 1).to_be_bytes());
    record[12] = len as u8;
    record[13..13 + len].copy_from_slice(&text[..len]);
    let fits = writer.put(&record[..13 + len]).is_some();
    if fits {
        writer.set_authoritative(true);
        writer.count(Section::Answer, 1);
    }
    fits
}
