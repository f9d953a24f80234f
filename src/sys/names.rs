//! The addresses of a host name by the system's resolver, and which kind of no it says: std has only the words. Must never know
//! what the addresses are for.

use std::{
    ffi::{CStr, CString},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ptr,
};

/// The name is there, of another family than those that were asked for. So in glibc; the libc crate does not have it.
const EAI_ADDRFAMILY: i32 = -9;

/// The addresses of `name`, in the resolver's order, as often as it tells them. Waits for as long as the resolver does.
///
/// # Errors
/// Why there are none. Of the kind [`io::ErrorKind::NotFound`] where whoever is responsible says that there is no such name, or that it
/// has no address; of others where nobody could be asked, or nobody answered, which says nothing about the name.
pub fn addresses_of(name: &str) -> io::Result<Vec<IpAddr>> {
    let name = CString::new(name).map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
    // SAFETY: zeroes are a valid addrinfo: no flags, any family, no pointers.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM; // or each address would come once for every type
    let mut first = ptr::null_mut();
    // SAFETY: `name` ends with a zero byte, `hints` is valid, and `first` may be written to.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &hints, &mut first) };
    if code != 0 {
        return Err(refused(code, io::Error::last_os_error()));
    }
    let mut addresses = Vec::new();
    let mut at = first;
    while !at.is_null() {
        // SAFETY: each link of the list that getaddrinfo has made is valid until the list is freed, below.
        let link = unsafe { &*at };
        addresses.extend(address_in(link));
        at = link.ai_next;
    }
    // SAFETY: `first` came from getaddrinfo, and nothing points into the list any more.
    unsafe { libc::freeaddrinfo(first) };
    Ok(addresses)
}

fn address_in(link: &libc::addrinfo) -> Option<IpAddr> {
    match link.ai_family {
        libc::AF_INET => {
            // SAFETY: of this family ai_addr points to a sockaddr_in; it is read unaligned.
            let address = unsafe { ptr::read_unaligned(link.ai_addr.cast::<libc::sockaddr_in>()) };
            Some(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: of this family ai_addr points to a sockaddr_in6; it is read unaligned.
            let address = unsafe { ptr::read_unaligned(link.ai_addr.cast::<libc::sockaddr_in6>()) };
            Some(Ipv6Addr::from(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// What a code of getaddrinfo means; `os` is the error of the operating system at that moment.
fn refused(code: i32, os: io::Error) -> io::Error {
    let kind = match code {
        libc::EAI_NONAME | libc::EAI_NODATA | EAI_ADDRFAMILY => io::ErrorKind::NotFound,
        libc::EAI_SYSTEM => return io::Error::other(os),
        _ => io::ErrorKind::Other,
    };
    // SAFETY: gai_strerror returns a constant text for every number.
    let words = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
    io::Error::new(kind, words.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_and_addresses_are_resolved_without_a_name_server() {
        assert!(addresses_of("localhost").unwrap().iter().all(IpAddr::is_loopback));
        assert_eq!(addresses_of("192.0.2.1").unwrap(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(addresses_of("2001:db8::1").unwrap(), ["2001:db8::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(addresses_of("no\0name").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_no_is_told_from_silence() {
        for (code, is_no) in [
            (libc::EAI_NONAME, true),
            (libc::EAI_NODATA, true),
            (EAI_ADDRFAMILY, true),
            (libc::EAI_AGAIN, false),
            (libc::EAI_FAIL, false),
            (libc::EAI_MEMORY, false),
            (libc::EAI_SYSTEM, false),
        ] {
            let error = refused(code, io::Error::from_raw_os_error(libc::ENOENT));
            assert_eq!(error.kind() == io::ErrorKind::NotFound, is_no, "{code}: {error}");
            assert!(!error.to_string().is_empty());
        }
    }
}
