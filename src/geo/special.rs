//! Addresses that tell nothing of a place: special-purpose ranges, and IPv6 addresses that only carry an IPv4 address.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use ipnet::{Ipv4Net, Ipv6Net};

/// An IPv4 address inside an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedded {
    /// The IPv4 address.
    pub v4: Ipv4Addr,
    /// The bit of the IPv6 address at which it begins: 96, or 16 in 6to4. A prefix of `n` bits of the IPv4 address is
    /// one of `offset_bits + n` bits of the IPv6 address.
    pub offset_bits: u8,
}

/// The IPv4 address inside a v4-mapped (RFC 4291 2.5.5.2), NAT64 (64:ff9b::/96, RFC 6052), 6to4 (2002::/16, RFC 3056)
/// or Teredo address (2001::/32, RFC 4380 4: the client's address, inverted, in the last 32 bits).
pub fn embedded_v4(address: Ipv6Addr) -> Option<Embedded> {
    let bits = u128::from(address);
    let low = bits as u32;
    let (v4, offset_bits) = if bits >> 32 == 0xffff || bits >> 32 == 0x0064_ff9b << 64 {
        (low, 96)
    } else if bits >> 112 == 0x2002 {
        ((bits >> 80) as u32, 16)
    } else if bits >> 96 == 0x2001_0000 {
        (!low, 96)
    } else {
        return None;
    };
    Some(Embedded { v4: Ipv4Addr::from(v4), offset_bits })
}

/// True for addresses that no database may locate: special-purpose ranges that are not globally reachable (RFC 6890 and
/// the IANA registries it founded), multicast, class E. An address with an embedded IPv4 address is what that one is.
pub fn is_special(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !covers(v4_pieces(), u32::from(v4).into()),
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(embedded) => is_special(IpAddr::V4(embedded.v4)),
            None => !covers(v6_pieces(), v6.into()),
        },
    }
}

/// A block of addresses: first and last, inclusive. IPv4 in the low 32 bits.
pub(super) type Block = (u128, u128);

/// The IPv4 space without the special-purpose ranges: CIDR blocks, ascending and disjoint.
pub(super) fn v4_pieces() -> &'static [Block] {
    static PIECES: LazyLock<Vec<Block>> = LazyLock::new(|| {
        let block = |text: &str| {
            let net: Ipv4Net = text.parse().expect("the tables of this module hold CIDR blocks");
            (u32::from(net.network()).into(), u32::from(net.broadcast()).into())
        };
        pieces(&SPECIAL_V4.map(|(text, _)| block(text)), &REACHABLE_V4.map(|(text, _)| block(text)), u32::MAX.into())
    });
    &PIECES
}

/// The IPv6 space without the special-purpose ranges and those that embed IPv4: CIDR blocks, ascending and disjoint.
pub(super) fn v6_pieces() -> &'static [Block] {
    static PIECES: LazyLock<Vec<Block>> = LazyLock::new(|| {
        let block = |text: &str| {
            let net: Ipv6Net = text.parse().expect("the tables of this module hold CIDR blocks");
            (net.network().into(), net.broadcast().into())
        };
        pieces(&SPECIAL_V6.map(|(text, _)| block(text)), &REACHABLE_V6.map(|(text, _)| block(text)), u128::MAX)
    });
    &PIECES
}

/// Not globally reachable by the IANA IPv4 Special-Purpose Address Registry, and what else is no unicast address.
const SPECIAL_V4: [(&str, &str); 16] = [
    ("0.0.0.0/8", "this network, RFC 791"),
    ("10.0.0.0/8", "private use, RFC 1918"),
    ("100.64.0.0/10", "shared by carrier-grade NAT, RFC 6598"),
    ("127.0.0.0/8", "loopback, RFC 1122"),
    ("169.254.0.0/16", "link local, RFC 3927"),
    ("172.16.0.0/12", "private use, RFC 1918"),
    ("192.0.0.0/24", "IETF protocol assignments, RFC 6890"),
    ("192.0.2.0/24", "documentation, RFC 5737"),
    ("192.88.99.0/24", "6to4 relay anycast, withdrawn by RFC 7526"),
    ("192.168.0.0/16", "private use, RFC 1918"),
    ("198.18.0.0/15", "benchmarking, RFC 2544"),
    ("198.51.100.0/24", "documentation, RFC 5737"),
    ("203.0.113.0/24", "documentation, RFC 5737"),
    ("224.0.0.0/4", "multicast, RFC 5771"),
    ("240.0.0.0/4", "reserved, RFC 1112"),
    ("255.255.255.255/32", "limited broadcast, RFC 8190"),
];

/// Globally reachable exceptions inside the ranges above. (Registered ranges that are reachable and stand alone, as
/// AS112's 192.31.196.0/24, need no entry: they are ordinary addresses.)
const REACHABLE_V4: [(&str, &str); 2] =
    [("192.0.0.9/32", "Port Control Protocol anycast, RFC 7723"), ("192.0.0.10/32", "TURN anycast, RFC 8155")];

/// Not globally reachable by the IANA IPv6 Special-Purpose Address Registry, what is no unicast address, and the ranges
/// that embed IPv4, which are located by that.
const SPECIAL_V6: [(&str, &str); 16] = [
    ("::/96", "unspecified, loopback, and the IPv4-compatible form withdrawn by RFC 4291"),
    ("::ffff:0:0/96", "v4-mapped, RFC 4291"),
    ("64:ff9b::/96", "NAT64, RFC 6052"),
    ("64:ff9b:1::/48", "local NAT64, RFC 8215"),
    ("100::/64", "discard only, RFC 6666"),
    ("100:0:0:1::/64", "dummy prefix, RFC 9780"),
    ("2001::/23", "IETF protocol assignments, RFC 2928; Teredo, RFC 4380"),
    ("2001:db8::/32", "documentation, RFC 3849"),
    ("2002::/16", "6to4, RFC 3056"),
    ("3fff::/20", "documentation, RFC 9637"),
    ("5f00::/16", "segment routing identifiers, RFC 9602"),
    ("fc00::/7", "unique local, RFC 4193"),
    ("fe80::/10", "link local, RFC 4291"),
    ("fec0::/10", "site local, withdrawn by RFC 3879"),
    ("ff00::/8", "multicast, RFC 4291"),
    ("200::/7", "OSI NSAP mapping, withdrawn by RFC 4048"),
];

/// Globally reachable exceptions inside the ranges above.
const REACHABLE_V6: [(&str, &str); 7] = [
    ("2001:1::1/128", "Port Control Protocol anycast, RFC 7723"),
    ("2001:1::2/128", "TURN anycast, RFC 8155"),
    ("2001:1::3/128", "DNS-SD service registration anycast, RFC 9665"),
    ("2001:3::/32", "automatic multicast tunnelling, RFC 7450"),
    ("2001:4:112::/48", "AS112, RFC 7535"),
    ("2001:20::/28", "ORCHIDv2, RFC 7343"),
    ("2001:30::/28", "drone identification, RFC 9374"),
];

/// True when one of the ascending `blocks` holds `address`.
fn covers(blocks: &[Block], address: u128) -> bool {
    let after = blocks.partition_point(|&(first, _)| first <= address);
    after > 0 && blocks[after - 1].1 >= address
}

/// The space up to `end`, less what is special and not reachable, as CIDR blocks in ascending order.
fn pieces(special: &[Block], reachable: &[Block], end: u128) -> Vec<Block> {
    // Every border of any range cuts the space; between two cuts all addresses are alike.
    let mut cuts: Vec<u128> = vec![0];
    for &(first, last) in special.iter().chain(reachable) {
        cuts.push(first);
        cuts.extend(last.checked_add(1).filter(|&next| next <= end));
    }
    cuts.sort_unstable();
    cuts.dedup();
    let inside = |blocks: &[Block], at: u128| blocks.iter().any(|&(first, last)| (first..=last).contains(&at));
    let mut open = Vec::new();
    for (index, &first) in cuts.iter().enumerate() {
        if !inside(special, first) || inside(reachable, first) {
            let last = cuts.get(index + 1).map_or(end, |next| next - 1);
            split_into_cidr(first, last, &mut open);
        }
    }
    open
}

/// Splits `first..=last` into the fewest CIDR blocks.
fn split_into_cidr(mut first: u128, last: u128, blocks: &mut Vec<Block>) {
    loop {
        let mut host_bits = first.trailing_zeros().min(127);
        while first + ((1 << host_bits) - 1) > last {
            host_bits -= 1;
        }
        let block_last = first + ((1 << host_bits) - 1);
        blocks.push((first, block_last));
        if block_last >= last {
            return;
        }
        first = block_last + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_purpose_ranges_begin_and_end_where_the_registries_say() {
        let cases = [
            ("0.0.0.0", true),
            ("0.255.255.255", true),
            ("1.0.0.0", false),
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("100.63.255.255", false),
            ("100.64.0.0", true),
            ("100.127.255.255", true),
            ("100.128.0.0", false),
            ("127.0.0.1", true),
            ("169.254.1.1", true),
            ("172.15.255.255", false),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("192.0.0.8", true),
            ("192.0.0.9", false),
            ("192.0.0.10", false),
            ("192.0.0.11", true),
            ("192.0.1.0", false),
            ("192.0.2.1", true),
            ("192.31.196.1", false),
            ("192.88.98.255", false),
            ("192.88.99.1", true),
            ("192.168.0.1", true),
            ("198.17.255.255", false),
            ("198.18.0.0", true),
            ("198.19.255.255", true),
            ("198.51.100.7", true),
            ("203.0.113.7", true),
            ("223.255.255.255", false),
            ("224.0.0.1", true),
            ("240.0.0.1", true),
            ("255.255.255.255", true),
            ("::", true),
            ("::1", true),
            ("::8.8.8.8", true),
            ("64:ff9b:1::1", true),
            ("64:ff9b:2::1", false),
            ("100::1", true),
            ("100:0:0:1::1", true),
            ("100:0:0:2::1", false),
            ("2001:1::1", false),
            ("2001:1::4", true),
            ("2001:2::1", true),
            ("2001:3::1", false),
            ("2001:4:112::1", false),
            ("2001:4:113::1", true),
            ("2001:10::1", true),
            ("2001:20::1", false),
            ("2001:1ff:ffff::1", true),
            ("2001:200::1", false),
            ("2001:db7:ffff::1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("3fff::1", true),
            ("3fff:1000::1", false),
            ("5f00::1", true),
            ("fbff::1", false),
            ("fc00::1", true),
            ("fdff::1", true),
            ("fe80::1", true),
            ("febf::1", true),
            ("fec0::1", true),
            ("ff02::1", true),
            ("2606:4700::1", false),
            // Embedded IPv4 is what the IPv4 is.
            ("::ffff:10.0.0.1", true),
            ("::ffff:8.8.8.8", false),
            ("64:ff9b::8.8.8.8", false),
            ("64:ff9b::192.168.1.1", true),
            ("2002:808:808::1", false),
            ("2002:a00:1::1", true),
        ];
        for (text, special) in cases {
            assert_eq!(is_special(text.parse().unwrap()), special, "{text}");
        }
    }

    #[test]
    fn an_embedded_address_is_taken_out_where_the_form_puts_it() {
        let cases = [
            ("::ffff:192.0.2.33", Some(("192.0.2.33", 96))),
            ("64:ff9b::192.0.2.33", Some(("192.0.2.33", 96))),
            ("64:ff9b:1::192.0.2.33", None),
            ("64:ff9b::1:c000:221", None),
            ("2002:c000:221::1", Some(("192.0.2.33", 16))),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", Some(("192.0.2.45", 96))),
            ("2001:1::1", None),
            ("::192.0.2.33", None),
            ("2001:db8::1", None),
        ];
        for (text, expected) in cases {
            let expected =
                expected.map(|(v4, offset_bits): (&str, u8)| Embedded { v4: v4.parse().unwrap(), offset_bits });
            assert_eq!(embedded_v4(text.parse().unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn the_pieces_are_aligned_ascending_and_disjoint() {
        for pieces in [v4_pieces(), v6_pieces()] {
            assert!(pieces.iter().zip(&pieces[1..]).all(|(a, b)| a.1 < b.0));
            for &(first, last) in pieces {
                let size = last - first + 1;
                assert!(size.is_power_of_two() && first % size == 0, "{first:x}");
            }
        }
    }
}
