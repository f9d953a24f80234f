//! Addresses and host names as people write them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::{
    config::value::{Fault, quote},
    wire::{Name, NameError},
};

/// What is wrong with a domain name.
pub(crate) fn name_fault(text: &str, error: &NameError) -> Fault {
    let help = match error {
        NameError::EmptyLabel if text.is_empty() => "write a name such as \"www.example.com\"",
        NameError::EmptyLabel => "write single dots between labels",
        NameError::LabelTooLong(..) => "a label is at most 63 bytes long",
        NameError::NameTooLong(_) => "a name is at most 255 bytes long, counting one more for each label and the root",
        NameError::BadEscape(_) => "write `\\` and three digits up to 255, or `\\` and one other character",
        NameError::BadWire => "write a name such as \"www.example.com\"",
    };
    let why = match error {
        NameError::EmptyLabel => "an empty label".to_string(),
        NameError::LabelTooLong(label, len) => format!("its label {} is {len} bytes long", quote(label)),
        NameError::NameTooLong(len) => format!("it is {len} bytes long"),
        NameError::BadEscape(escape) => format!("a bad escape {}", quote(escape)),
        NameError::BadWire => "not a name".to_string(),
    };
    Fault::new(format!("{} is not a domain name: {why}", quote(text)), help)
}

/// A host name: letters, digits, hyphens and underscores; absolute, the final dot may be left out.
pub(crate) fn host_name(text: &str) -> Result<Name, Fault> {
    if !text.is_ascii() {
        let message = format!("{} is not a host name: it has letters outside ASCII", quote(text));
        return Err(Fault::new(message, "write its ASCII form, which begins with xn--"));
    }
    let name: Name = text.parse().map_err(|error| name_fault(text, &error))?;
    let fits = |label: &[u8]| {
        let edge = |b: Option<&u8>| b.is_some_and(|&b| b != b'-');
        edge(label.first())
            && edge(label.last())
            && label.iter().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(b))
    };
    if name == Name::root() || !name.labels().all(fits) {
        let message = format!("{} is not a host name", quote(text));
        return Err(Fault::new(
            message,
            "write letters, digits and hyphens between dots, for example \"www.example.com\"",
        ));
    }
    Ok(name)
}

/// An address that can stand in a public answer: neither unspecified nor multicast nor broadcast, and no IPv4 in disguise.
pub(crate) fn answerable(address: IpAddr) -> Result<IpAddr, Fault> {
    let no = |what: &str| {
        let message = format!("{} is {what}, which no client can reach", quote(&address.to_string()));
        Err(Fault::new(message, "write the address of one host"))
    };
    match address {
        _ if address.is_unspecified() => no("the unspecified address"),
        _ if address.is_multicast() => no("a multicast address"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => no("the broadcast address"),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => {
                let message = format!("{} is an IPv4 address in IPv6 form", quote(&address.to_string()));
                Err(Fault::new(message, format!("write \"{v4}\"")))
            }
            None => Ok(address),
        },
        IpAddr::V4(_) => Ok(address),
    }
}

/// An address alone, as in glue.
pub(crate) fn address(text: &str) -> Result<IpAddr, Fault> {
    match text.parse() {
        Ok(address) => answerable(address),
        Err(_) => Err(misread_address(text).unwrap_or_else(|| {
            let message = format!("{} is not an address", quote(text));
            Fault::new(message, "write an address such as \"192.0.2.1\" or \"2001:db8::1\"")
        })),
    }
}

/// What is wrong with a text that was meant as an address; `None` when it may be a name.
pub(crate) fn misread_address(text: &str) -> Option<Fault> {
    let quoted = quote(text);
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Some((scheme, rest)) = text.split_once("://") {
        let host = rest.split(['/', ':']).next().unwrap_or("");
        let message = format!("{quoted} is a URL");
        return Some(match scheme {
            "http" | "https" if !host.is_empty() => Fault::new(message, format!("write the host alone: \"{host}\"")),
            _ => Fault::new(message, "write the host alone"),
        });
    }
    if text.contains('/') {
        return Some(Fault::new(format!("{quoted} is not one address"), "write one address, without a prefix length"));
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        let help = format!("write \"{}\"; the check names the port", socket.ip());
        return Some(Fault::new(format!("{quoted} has a port, which DNS cannot tell a client"), help));
    }
    if bare != text && bare.parse::<IpAddr>().is_ok() {
        return Some(Fault::new(format!("{quoted} stands in brackets"), format!("write \"{bare}\"")));
    }
    if let Some((host, port)) = text.rsplit_once(':') {
        let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        if is_port && !host.contains(':') && !host.is_empty() {
            let help = format!("write \"{host}\"; the check names the port");
            return Some(Fault::new(format!("{quoted} has a port, which DNS cannot tell a client"), help));
        }
        return Some(Fault::new(
            format!("{quoted} is not an IPv6 address"),
            "write an address such as \"2001:db8::1\"",
        ));
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let help = "write four numbers from 0 to 255 without leading zeros, for example \"192.0.2.1\"";
        return Some(Fault::new(format!("{quoted} is not an IPv4 address"), help));
    }
    None
}

/// An address and port to listen on; port 0 lets the system choose.
pub(crate) fn listen_address(text: &str, usual_port: u16) -> Result<SocketAddr, Fault> {
    let quoted = quote(text);
    if let Ok(address) = text.parse::<SocketAddr>() {
        if address.ip().is_multicast() || address.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(Fault::new(format!("{quoted} is not the address of a host"), "write an address of this host"));
        }
        return Ok(address);
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        let help = format!("write \"{}\"", SocketAddr::new(ip, usual_port));
        return Err(Fault::new(format!("{quoted} has no port"), help));
    }
    let message = format!("{quoted} is not an address and port");
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let port_number = port.parse::<u16>();
    if host.is_empty() || host == "*" {
        let port = port_number.unwrap_or(usual_port);
        return Err(Fault::new(message, format!("for every address write \"0.0.0.0:{port}\" or \"[::]:{port}\"")));
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Err(match (port_number, ip) {
            (Ok(port), IpAddr::V6(_)) => Fault::new(message, format!("write \"[{ip}]:{port}\"")),
            _ => Fault::new(message, "a port is a number from 0 to 65535"),
        });
    }
    if host == "localhost" {
        let port = port_number.unwrap_or(usual_port);
        return Err(Fault::new(message, format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\"")));
    }
    Err(Fault::new(message, format!("write an address and a port, for example \"127.0.0.1:{usual_port}\"")))
}

/// The same; an address alone stands for its usual port.
pub(crate) fn listen_address_or_port(text: &str, usual_port: u16) -> Result<SocketAddr, Fault> {
    match text.parse::<IpAddr>() {
        Ok(ip) => listen_address(&SocketAddr::new(ip, usual_port).to_string(), usual_port),
        Err(_) => listen_address(text, usual_port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_letters_digits_and_hyphens() {
        for (text, good) in [
            ("www.example.com", true),
            ("www.example.com.", true),
            ("_acme.example.com", true),
            ("localhost", true),
            ("3com.example", true),
            ("-a.example", false),
            ("a-.example", false),
            ("a b.example", false),
            ("a..b", false),
            (".", false),
            ("", false),
            ("münchen.example", false),
            ("*.example", false),
            ("a@b", false),
        ] {
            assert_eq!(host_name(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_misread_address_is_told_apart() {
        for (text, help) in [
            ("192.0.2.300", "write four numbers from 0 to 255 without leading zeros, for example \"192.0.2.1\""),
            ("192.0.2.1:80", "write \"192.0.2.1\"; the check names the port"),
            ("www.example.com:80", "write \"www.example.com\"; the check names the port"),
            ("[2001:db8::1]:80", "write \"2001:db8::1\"; the check names the port"),
            ("[2001:db8::1]", "write \"2001:db8::1\""),
            ("2001:db8::zz", "write an address such as \"2001:db8::1\""),
            ("http://www.example.com/x", "write the host alone: \"www.example.com\""),
            ("192.0.2.0/24", "write one address, without a prefix length"),
        ] {
            assert_eq!(misread_address(text).unwrap().help.as_deref(), Some(help), "{text}");
        }
        assert_eq!(misread_address("www.example.com"), None);
    }

    #[test]
    fn a_listen_address_has_a_port() {
        for (text, help) in [
            ("127.0.0.1", "write \"127.0.0.1:53\""),
            ("::1", "write \"[::1]:53\""),
            ("2001:db8::1:53", "write \"[2001:db8::1:53]:53\""),
            (":53", "for every address write \"0.0.0.0:53\" or \"[::]:53\""),
            ("*:5300", "for every address write \"0.0.0.0:5300\" or \"[::]:5300\""),
            ("localhost:5300", "write \"127.0.0.1:5300\" or \"[::1]:5300\""),
            ("127.0.0.1:70000", "a port is a number from 0 to 65535"),
            ("ns1.example.com:53", "write an address and a port, for example \"127.0.0.1:53\""),
            ("224.0.0.1:53", "write an address of this host"),
        ] {
            assert_eq!(listen_address(text, 53).unwrap_err().help.as_deref(), Some(help), "{text}");
        }
        assert!(listen_address("[::1]:0", 53).is_ok());
    }

    #[test]
    fn an_address_alone_stands_for_the_usual_port_where_there_is_one() {
        for (text, address) in
            [("192.0.2.1", "192.0.2.1:853"), ("::1", "[::1]:853"), ("192.0.2.1:8853", "192.0.2.1:8853")]
        {
            assert_eq!(listen_address_or_port(text, 853), Ok(address.parse().unwrap()), "{text}");
        }
        let fault = listen_address_or_port("224.0.0.1", 853).unwrap_err();
        assert_eq!(fault.help.as_deref(), Some("write an address of this host"));
    }
}
