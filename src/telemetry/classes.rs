//! What queries and answers are counted by. Each class is an index into an array of counters and a label in the metrics.

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// In a datagram.
    Udp,
    /// On a TCP connection.
    Tcp,
    /// Over TLS (RFC 7858).
    Dot,
    /// Over QUIC (RFC 9250).
    Doq,
    /// Over HTTPS (RFC 8484).
    Doh,
}

impl TransportKind {
    /// All of them, in index order.
    pub const ALL: [TransportKind; 5] =
        [TransportKind::Udp, TransportKind::Tcp, TransportKind::Dot, TransportKind::Doq, TransportKind::Doh];

    /// Label in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            TransportKind::Udp => "udp",
            TransportKind::Tcp => "tcp",
            TransportKind::Dot => "dot",
            TransportKind::Doq => "doq",
            TransportKind::Doh => "doh",
        }
    }

    /// True where nobody between client and server reads along.
    pub fn is_encrypted(self) -> bool {
        !matches!(self, TransportKind::Udp | TransportKind::Tcp)
    }

    /// True where a message stands on a connection behind its length, as edns-tcp-keepalive presumes (RFC 7828 §3.2; RFC 9250
    /// §5.5.2 forbids it over QUIC, and HTTP has its own means).
    pub fn has_keepalive(self) -> bool {
        matches!(self, TransportKind::Tcp | TransportKind::Dot)
    }
}

/// What a query asked for, coarse enough that a flood of odd types makes no new time series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum QtypeClass {
    A,
    Aaaa,
    Cname,
    Ns,
    Soa,
    Txt,
    Mx,
    Https,
    Srv,
    /// DS and DNSKEY.
    Dnssec,
    Any,
    /// Any other type.
    Other,
    /// No question that could be read.
    None,
}

impl QtypeClass {
    /// All of them, in index order.
    pub const ALL: [QtypeClass; 13] = [
        QtypeClass::A,
        QtypeClass::Aaaa,
        QtypeClass::Cname,
        QtypeClass::Ns,
        QtypeClass::Soa,
        QtypeClass::Txt,
        QtypeClass::Mx,
        QtypeClass::Https,
        QtypeClass::Srv,
        QtypeClass::Dnssec,
        QtypeClass::Any,
        QtypeClass::Other,
        QtypeClass::None,
    ];

    /// The class of a query type (IANA DNS parameters).
    pub fn of(qtype: u16) -> Self {
        match qtype {
            1 => QtypeClass::A,
            2 => QtypeClass::Ns,
            5 => QtypeClass::Cname,
            6 => QtypeClass::Soa,
            15 => QtypeClass::Mx,
            16 => QtypeClass::Txt,
            28 => QtypeClass::Aaaa,
            33 => QtypeClass::Srv,
            43 | 48 => QtypeClass::Dnssec,
            65 => QtypeClass::Https,
            255 => QtypeClass::Any,
            _ => QtypeClass::Other,
        }
    }

    /// Label in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            QtypeClass::A => "a",
            QtypeClass::Aaaa => "aaaa",
            QtypeClass::Cname => "cname",
            QtypeClass::Ns => "ns",
            QtypeClass::Soa => "soa",
            QtypeClass::Txt => "txt",
            QtypeClass::Mx => "mx",
            QtypeClass::Https => "https",
            QtypeClass::Srv => "srv",
            QtypeClass::Dnssec => "dnssec",
            QtypeClass::Any => "any",
            QtypeClass::Other => "other",
            QtypeClass::None => "none",
        }
    }
}

/// Why a query got no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Shorter than a header, 12 bytes.
    Short,
    /// A response itself (QR = 1); answering those makes loops.
    Response,
    /// Not to be read as a query, and not to be answered with FORMERR either.
    Malformed,
    /// A datagram longer than the receive buffer.
    Truncated,
    /// Over the limit of responses to its network.
    RateLimited,
}

impl DropReason {
    /// All of them, in index order.
    pub const ALL: [DropReason; 5] = [
        DropReason::Short,
        DropReason::Response,
        DropReason::Malformed,
        DropReason::Truncated,
        DropReason::RateLimited,
    ];

    /// Label in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            DropReason::Short => "short",
            DropReason::Response => "response",
            DropReason::Malformed => "malformed",
            DropReason::Truncated => "truncated",
            DropReason::RateLimited => "rate-limited",
        }
    }
}

/// Response codes that are counted one by one: all that exist in messages (0 to 11 in the header, BADVERS to BADCOOKIE
/// with EDNS; RFC 6895 §2.3).
pub const RCODES: usize = 24;

/// Label of a response code in the metrics: its mnemonic, or the number.
pub fn rcode_label(rcode: usize) -> String {
    const HEADER: [&str; 12] = [
        "NOERROR",
        "FORMERR",
        "SERVFAIL",
        "NXDOMAIN",
        "NOTIMP",
        "REFUSED",
        "YXDOMAIN",
        "YXRRSET",
        "NXRRSET",
        "NOTAUTH",
        "NOTZONE",
        "DSOTYPENI",
    ];
    const EXTENDED: [&str; 8] =
        ["BADVERS", "BADKEY", "BADTIME", "BADMODE", "BADNAME", "BADALG", "BADTRUNC", "BADCOOKIE"];
    let name = match rcode {
        0..12 => HEADER[rcode],
        16..24 => EXTENDED[rcode - 16],
        _ => return rcode.to_string(),
    };
    name.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_follow_the_lists() {
        assert!(TransportKind::ALL.iter().enumerate().all(|(n, t)| *t as usize == n));
        assert!(QtypeClass::ALL.iter().enumerate().all(|(n, c)| *c as usize == n));
        assert!(DropReason::ALL.iter().enumerate().all(|(n, r)| *r as usize == n));
    }

    #[test]
    fn types_fall_into_their_classes() {
        for (qtype, label) in [(1, "a"), (28, "aaaa"), (65, "https"), (48, "dnssec"), (43, "dnssec"), (255, "any")] {
            assert_eq!(QtypeClass::of(qtype).label(), label);
        }
        for qtype in [0, 3, 64, 252, 65535] {
            assert_eq!(QtypeClass::of(qtype), QtypeClass::Other);
        }
    }

    #[test]
    fn response_codes_have_their_names() {
        for (rcode, label) in [(0, "NOERROR"), (5, "REFUSED"), (11, "DSOTYPENI"), (13, "13"), (16, "BADVERS")] {
            assert_eq!(rcode_label(rcode), label);
        }
        assert_eq!(rcode_label(RCODES - 1), "BADCOOKIE");
    }
}
