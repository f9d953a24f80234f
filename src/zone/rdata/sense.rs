//! What the syntax of single fields cannot tell: lengths that follow from another field's value.

use super::types;

/// Checks valid wire data for contradictions between its fields; an error says in words what they are.
pub fn check(rtype: u16, data: &[u8]) -> Result<(), String> {
    match rtype {
        43 | 59 | 32768 | 32769 => check_ds(rtype, data),
        48 | 57 | 60 => check_key(rtype, data),
        44 => length("fingerprint", data[1], &[(1, 20), (2, 32)], "type", data.len() - 2),
        52 | 53 => length("association data", data[2], &[(1, 32), (2, 64)], "matching type", data.len() - 3),
        63 => check_zonemd(data),
        _ => Ok(()),
    }
}

/// A DS digest has the length of its type. `0 0 0 00` in a CDS asks the parent to remove the DS (RFC 8078 §4).
fn check_ds(rtype: u16, data: &[u8]) -> Result<(), String> {
    if data[2] == 0 {
        let is_removal = rtype == 59 && data == [0, 0, 0, 0, 0];
        return if is_removal { Ok(()) } else { Err(format!("algorithm 0 in {} data", types::Shown(rtype))) };
    }
    length("digest", data[3], &[(1, 20), (2, 32), (3, 32), (4, 48), (5, 32), (6, 32)], "digest type", data.len() - 4)
}

/// RFC 4034 §2.1.2: the protocol is 3. Keys on curves have one length only (RFC 6605, RFC 8080).
fn check_key(rtype: u16, data: &[u8]) -> Result<(), String> {
    if data[2] != 3 {
        return Err(format!("the protocol of {} data is {}; it must be 3", types::Shown(rtype), data[2]));
    }
    length("public key", data[3], &[(13, 64), (14, 96), (15, 32), (16, 57)], "algorithm", data.len() - 4)
}

/// RFC 8976 §2.2.4: no digest is under 12 bytes.
fn check_zonemd(data: &[u8]) -> Result<(), String> {
    let len = data.len() - 6;
    if len < 12 {
        return Err(format!("the digest is {len} bytes long; it must have at least 12"));
    }
    length("digest", data[5], &[(1, 48), (2, 64)], "hash algorithm", len)
}

/// `what` must be as long as the table says for `code`; codes that it lacks pass.
fn length(what: &str, code: u8, table: &[(u8, usize)], coded_by: &str, len: usize) -> Result<(), String> {
    match table.iter().find(|(c, _)| *c == code) {
        Some((_, wanted)) if *wanted != len => {
            Err(format!("the {what} is {len} bytes long; {coded_by} {code} has {wanted}"))
        }
        _ => Ok(()),
    }
}
