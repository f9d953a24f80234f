//! EDNS Client Subnet (RFC 7871), read strictly: what is not exactly right is FORMERR.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A client subnet option of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ecs {
    /// The network's first address.
    pub address: IpAddr,
    /// Source prefix length in bits: 0 to 32 or 0 to 128.
    pub source_len: u8,
}

impl Ecs {
    /// Reads the option's data (RFC 7871 §6): family 1 or 2, scope 0, exactly as many address bytes as the source length needs,
    /// no bit set beyond it.
    pub fn parse(data: &[u8]) -> Option<Ecs> {
        let &[0, family, source_len, 0, ref bytes @ ..] = data else { return None };
        let bits_max = match family {
            1 => 32,
            2 => 128,
            _ => return None,
        };
        if source_len > bits_max || bytes.len() != usize::from(source_len).div_ceil(8) {
            return None;
        }
        let mut full = [0u8; 16];
        full[..bytes.len()].copy_from_slice(bytes);
        let spare_bits = (8 - source_len % 8) % 8;
        if let Some(last) = bytes.last()
            && last & ((1u8 << spare_bits) - 1) != 0
        {
            return None;
        }
        let address = match family {
            1 => IpAddr::V4(Ipv4Addr::new(full[0], full[1], full[2], full[3])),
            _ => IpAddr::V6(Ipv6Addr::from(full)),
        };
        Some(Ecs { address, source_len })
    }

    /// Length of the option in a reply, its code and length included.
    pub fn option_len(&self) -> usize {
        8 + self.address_len()
    }

    fn address_len(&self) -> usize {
        usize::from(self.source_len).div_ceil(8)
    }

    /// Writes the option for a reply: family, source length and address as they came, and our scope. Returns its length;
    /// `out` has at least [`Self::option_len`] bytes.
    pub fn write(&self, scope_len: u8, out: &mut [u8]) -> usize {
        let n = self.address_len();
        out[..2].copy_from_slice(&super::codes::option::CLIENT_SUBNET.to_be_bytes());
        out[2..4].copy_from_slice(&(4 + n as u16).to_be_bytes());
        out[4..8].copy_from_slice(&[0, if self.address.is_ipv4() { 1 } else { 2 }, self.source_len, scope_len]);
        match self.address {
            IpAddr::V4(v4) => out[8..8 + n].copy_from_slice(&v4.octets()[..n]),
            IpAddr::V6(v6) => out[8..8 + n].copy_from_slice(&v6.octets()[..n]),
        }
        8 + n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_options_are_read_and_echoed() {
        for (data, address, source_len) in [
            (&b"\0\x01\x18\0\xc0\0\x02"[..], "192.0.2.0", 24),
            (b"\0\x01\x00\0", "0.0.0.0", 0),
            (b"\0\x01\x01\0\x80", "128.0.0.0", 1),
            (b"\0\x02\x21\0\x20\x01\x0d\xb8\x80", "2001:db8:8000::", 33),
            (b"\0\x02\x00\0", "::", 0),
        ] {
            let ecs = Ecs::parse(data).unwrap();
            assert_eq!((ecs.address, ecs.source_len), (address.parse().unwrap(), source_len));
            let mut out = [0; 64];
            let n = ecs.write(7, &mut out);
            assert_eq!(n, ecs.option_len());
            assert_eq!(&out[4..7], &data[..3]);
            assert_eq!(out[7], 7);
            assert_eq!(&out[8..n], &data[4..]);
        }
    }

    #[test]
    fn anything_not_exactly_right_is_refused() {
        for data in [
            &b""[..],
            b"\0\x01\x18",
            b"\0\x01\x18\x18\xc0\0\x02",
            b"\0\x01\x14\0\xc0\0\x2f",
            b"\0\x01\x18\0\xc0\0\x02\0",
            b"\0\x01\x18\0\xc0\0",
            b"\0\x01\x21\0\xc0\0\x02\x01\0",
            b"\0\x03\x18\0\x01\x02\x03",
            b"\0\0\0\0",
            b"\x01\x01\0\0",
            b"\0\x01\0\0\xc0",
            b"\0\x02\x81\0\x20\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ] {
            assert_eq!(Ecs::parse(data), None, "{data:?}");
        }
    }
}
