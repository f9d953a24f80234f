//! Records ready to be copied into a reply.
//!
//! A record's owner is a two-byte pointer, to the question's name unless patched. A name inside the data of the types of
//! RFC 1035 that ends in the zone's apex ends in a pointer to the apex instead: the question's name always ends in the apex, too,
//! so the pointer's value is known when the reply is written (names in newer types stay whole, RFC 3597 §4).

use crate::wire::{Name, QName, Writer, class, rtype, writer::POINTER_END, writer::QNAME_AT, writer::Section};

/// A run of records: encoded once, copied into replies and patched in two places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    wire: Box<[u8]>,
    owner_marks: Box<[u32]>,
    apex_marks: Box<[u32]>,
}

/// The pointer to the question's name, as an owner.
const TO_QNAME: [u8; 2] = pointer_to(QNAME_AT);

/// The compression pointer to `offset`, which is below [`POINTER_END`].
const fn pointer_to(offset: usize) -> [u8; 2] {
    debug_assert!(offset < POINTER_END);
    (0xc000 | offset as u16).to_be_bytes()
}

impl Fragment {
    /// How many records it has.
    pub fn records(&self) -> u16 {
        self.owner_marks.len() as u16
    }

    /// Length in bytes as written.
    pub fn wire_len(&self) -> usize {
        self.wire.len()
    }

    /// Writes the records with the owner at offset `owner_at` of the message and the zone's apex at offset `apex_at`; `None`,
    /// with nothing written, when they do not fit.
    pub fn write(&self, writer: &mut Writer, section: Section, owner_at: usize, apex_at: usize) -> Option<()> {
        let place = writer.put(&self.wire)?;
        if owner_at != QNAME_AT {
            patch(place, &self.owner_marks, owner_at);
        }
        patch(place, &self.apex_marks, apex_at);
        writer.count(section, self.records());
        Some(())
    }
}

impl Fragment {
    /// As [`Fragment::write`], with another TTL in seconds.
    pub fn write_with_ttl(
        &self,
        writer: &mut Writer,
        section: Section,
        owner_at: usize,
        apex_at: usize,
        ttl_s: u32,
    ) -> Option<()> {
        let place = writer.put(&self.wire)?;
        patch(place, &self.owner_marks, owner_at);
        patch(place, &self.apex_marks, apex_at);
        for &mark in &self.owner_marks {
            let ttl_at = mark as usize + 6; // after owner, type and class
            place[ttl_at..ttl_at + 4].copy_from_slice(&ttl_s.to_be_bytes());
        }
        writer.count(section, self.records());
        Some(())
    }
}

fn patch(place: &mut [u8], marks: &[u32], target: usize) {
    let pointer = pointer_to(target);
    for &mark in marks {
        let at = mark as usize;
        place[at..at + 2].copy_from_slice(&pointer);
    }
}

/// Builds a [`Fragment`] for one zone.
pub struct FragmentBuilder<'z> {
    apex: &'z Name,
    wire: Vec<u8>,
    owner_marks: Vec<u32>,
    apex_marks: Vec<u32>,
}

impl<'z> FragmentBuilder<'z> {
    /// Begins an empty fragment for the zone of `apex`.
    pub fn new(apex: &'z Name) -> Self {
        FragmentBuilder { apex, wire: Vec::new(), owner_marks: Vec::new(), apex_marks: Vec::new() }
    }

    /// Adds a record whose owner is given when the fragment is written.
    pub fn push(&mut self, rtype: u16, ttl_s: u32, rdata: &[u8]) {
        self.owner_marks.push(self.wire.len() as u32);
        self.wire.extend(TO_QNAME);
        self.push_body(rtype, ttl_s, rdata);
    }

    /// Adds a record with an owner of its own.
    pub fn push_owned(&mut self, owner: &Name, rtype: u16, ttl_s: u32, rdata: &[u8]) {
        self.push_name(owner.as_wire());
        self.push_body(rtype, ttl_s, rdata);
    }

    /// The finished fragment. Records with owners of their own are not counted by [`Fragment::records`]: see
    /// [`OwnedFragment`].
    pub fn finish(self) -> Fragment {
        Fragment { wire: self.wire.into(), owner_marks: self.owner_marks.into(), apex_marks: self.apex_marks.into() }
    }

    fn push_body(&mut self, rtype: u16, ttl_s: u32, rdata: &[u8]) {
        self.wire.extend(rtype.to_be_bytes());
        self.wire.extend(class::IN.to_be_bytes());
        self.wire.extend(ttl_s.to_be_bytes());
        let len_at = self.wire.len();
        self.wire.extend([0, 0]);
        self.push_rdata(rtype, rdata);
        let len = (self.wire.len() - len_at - 2) as u16;
        self.wire[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
    }

    /// Only the types of RFC 1035 may carry compressed names (RFC 3597 §4).
    fn push_rdata(&mut self, rtype: u16, rdata: &[u8]) {
        use rtype::{CNAME, MB, MG, MINFO, MR, MX, NS, PTR, SOA};
        let (before, names) = match rtype {
            NS | CNAME | PTR | MB | MG | MR => (0, 1),
            MX => (2, 1),
            SOA | MINFO => (0, 2),
            _ => (rdata.len(), 0),
        };
        self.wire.extend(&rdata[..before]);
        let mut rest = &rdata[before..];
        for _ in 0..names {
            let Some(name) = QName::parse(rest) else { break };
            self.push_name(&rest[..name.len()]);
            rest = &rest[name.len()..];
        }
        self.wire.extend(rest);
    }

    /// A name, its apex replaced by a marked pointer where it has one.
    fn push_name(&mut self, wire: &[u8]) {
        let apex = self.apex.as_wire();
        let mut at = 0;
        loop {
            if apex.len() > 2 && wire[at..].eq_ignore_ascii_case(apex) {
                self.wire.extend(&wire[..at]);
                self.apex_marks.push(self.wire.len() as u32);
                self.wire.extend(TO_QNAME);
                return;
            }
            match wire[at] {
                0 => break,
                n => at += 1 + usize::from(n),
            }
        }
        self.wire.extend(wire);
    }
}

/// Records with owners of their own (glue).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnedFragment {
    fragment: Fragment,
    records: u16,
}

impl OwnedFragment {
    /// Takes the builder's records, `records` of them, all with owners of their own.
    pub fn new(builder: FragmentBuilder, records: u16) -> Self {
        OwnedFragment { fragment: builder.finish(), records }
    }

    /// How many records it has.
    pub fn records(&self) -> u16 {
        self.records
    }

    /// As [`Fragment::write`].
    pub fn write(&self, writer: &mut Writer, section: Section, apex_at: usize) -> Option<()> {
        let place = writer.put(&self.fragment.wire)?;
        patch(place, &self.fragment.apex_marks, apex_at);
        writer.count(section, self.records);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_old_types_end_in_a_pointer_to_the_apex_and_others_stay_whole() {
        let apex: Name = "example.com".parse().unwrap();
        let target: Name = "www.example.com".parse().unwrap();
        let mut builder = FragmentBuilder::new(&apex);
        builder.push(rtype::CNAME, 60, target.as_wire());
        builder.push(33, 60, &[&[0, 1, 0, 2, 0, 3], target.as_wire()].concat());
        let fragment = builder.finish();
        assert_eq!(fragment.records(), 2);

        let mut buf = [0; 512];
        let query = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x01x\x07example\x03com\0\0\x05\0\x01";
        let mut writer = Writer::reply(&mut buf, query, query.len() - 12, 512);
        let start = writer.position();
        fragment.write(&mut writer, Section::Answer, QNAME_AT, 14).unwrap();
        let end = writer.position();
        let cname = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x06\x03www\xc0\x0e";
        assert_eq!(&buf[start..start + cname.len()], cname);
        assert!(buf[start..end].ends_with(target.as_wire()));
    }
}
