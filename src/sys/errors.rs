//! Error numbers that std has no stable name for. Must never know who met them.

use std::io;

/// The host has no such address, or not even its family.
pub fn is_address_lacking(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT))
}

/// The process or the system has no more file descriptors or memory for sockets.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_numbers_fall_into_their_kinds() {
        for (number, lacking, exhausted) in [
            (libc::EADDRNOTAVAIL, true, false),
            (libc::EAFNOSUPPORT, true, false),
            (libc::EMFILE, false, true),
            (libc::ENFILE, false, true),
            (libc::ECONNABORTED, false, false),
            (libc::EADDRINUSE, false, false),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!((is_address_lacking(&error), is_exhausted(&error)), (lacking, exhausted), "{error}");
        }
    }
}
