//! What counts as one client where resolvers are told apart: an IPv4 /24 or an IPv6 /56.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An IPv4 /24 or an IPv6 /56, in eight bytes. A /24 is the longest IPv4 prefix that the Internet routes, a /56 is what one customer
/// gets: all of it goes the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(u64);

/// A text that is no /24 or /56.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no IPv4 /24 and no IPv6 /56")]
pub struct NotANetwork(String);

impl Network {
    /// Length of the IPv4 prefixes.
    pub const V4_LEN: u8 = 24;
    /// Length of the IPv6 prefixes.
    pub const V6_LEN: u8 = 56;

    const IS_V4: u64 = 1 << 63;
    const IS_V6: u64 = 1 << 62;

    /// The network of an address.
    #[inline]
    pub fn of(address: IpAddr) -> Network {
        match address {
            IpAddr::V4(v4) => Network(Self::IS_V4 | u64::from(v4.to_bits() >> 8)),
            IpAddr::V6(v6) => Network(Self::IS_V6 | (v6.to_bits() >> 72) as u64),
        }
    }

    /// A number of its own for each network, never zero.
    #[inline]
    pub fn key(self) -> u64 {
        self.0
    }

    /// The network with this [`Network::key`]; `None` for a number that is none.
    pub fn from_key(key: u64) -> Option<Network> {
        let network = Network(key);
        (Network::of(network.prefix().addr()) == network).then_some(network)
    }

    /// As a prefix.
    pub fn prefix(self) -> IpNet {
        let bits = self.0 & !(Self::IS_V4 | Self::IS_V6);
        match self.0 & Self::IS_V4 {
            0 => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(u128::from(bits) << 72), Self::V6_LEN)),
            _ => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits((bits as u32) << 8), Self::V4_LEN)),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.prefix().fmt(f)
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Network, NotANetwork> {
        let prefix: Option<IpNet> = text.parse().ok();
        let network = prefix.map(|prefix| Network::of(prefix.addr()));
        network.filter(|network| Some(network.prefix()) == prefix).ok_or_else(|| NotANetwork(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Network {
        Network::of(address.parse().unwrap())
    }

    #[test]
    fn addresses_of_one_24_or_56_are_one_network() {
        for (a, b, same) in [
            ("192.0.2.1", "192.0.2.255", true),
            ("192.0.2.1", "192.0.3.1", false),
            ("2001:db8:0:ff00::1", "2001:db8:0:ffff:1::", true),
            ("2001:db8:0:ff00::1", "2001:db8:0:fe00::1", false),
            ("0.0.0.0", "::", false),
        ] {
            assert_eq!(of(a) == of(b), same, "{a} {b}");
        }
    }

    #[test]
    fn text_and_number_lead_back_to_the_network() {
        for (address, text) in [
            ("192.0.2.33", "192.0.2.0/24"),
            ("255.255.255.255", "255.255.255.0/24"),
            ("2001:db8:1:2ff::3", "2001:db8:1:200::/56"),
            ("::", "::/56"),
        ] {
            let network = of(address);
            assert_eq!(network.to_string(), text);
            assert_eq!(text.parse(), Ok(network));
            assert_eq!(Network::from_key(network.key()), Some(network));
        }
    }

    #[test]
    fn what_is_no_network_is_told() {
        for text in ["", "192.0.2.0", "192.0.2.0/23", "192.0.2.1/24", "2001:db8::/48", "2001:db8::1/56", "x/24"] {
            assert_eq!(text.parse::<Network>(), Err(NotANetwork(text.into())));
        }
        for key in [0, 1, 3 << 62, 1 << 63 | 1 << 24, 1 << 62 | 1 << 56] {
            assert_eq!(Network::from_key(key), None, "{key:x}");
        }
    }
}
