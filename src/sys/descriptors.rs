//! Open files that go from one process to another (`SCM_RIGHTS`, `LISTEN_FDS`), and who is at the other end. Must never know what the
//! files are.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, IoSliceMut},
    mem::{self, MaybeUninit},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

use libc::socklen_t;
use listenfd::ListenFd;
use rustix::{
    cmsg_space,
    io::{FdFlags, fcntl_setfd, retry_on_intr},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};

/// Most descriptors in one message; the kernel takes 253.
const AT_ONCE: usize = 200;

/// The process at the other end of a Unix socket. Of one that listens: as it was when it began to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process id; 0 where it cannot be seen from here.
    pub pid: u32,
    /// The user that it runs as.
    pub user: u32,
}

/// Gives the other end of a Unix stream socket a copy of each descriptor, beside one byte for every `AT_ONCE` of them.
///
/// # Errors
/// What `sendmsg` says.
pub fn send(stream: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for some in descriptors.chunks(AT_ONCE) {
        let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        assert!(control.push(SendAncillaryMessage::ScmRights(some)), "there is room for so many");
        retry_on_intr(|| sendmsg(&stream, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL))?;
    }
    Ok(())
}

/// Takes so many descriptors that the other end [`send`]s.
///
/// # Errors
/// What `recvmsg` says; the other end is gone, or sends something else; this process may not have so many files open.
pub fn receive(stream: impl AsFd, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut all = Vec::new();
    while all.len() < count {
        let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let mut byte = [0];
        let message = retry_on_intr(|| {
            recvmsg(&stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
        })?;
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = all.len();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = part {
                all.extend(some);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) || all.len() == before {
            return Err(io::Error::other("open files did not arrive; may this process have so many (ulimit -n)?"));
        }
    }
    Ok(all)
}

/// Who is at the other end of a Unix socket.
///
/// # Errors
/// What `getsockopt` says.
pub fn peer(stream: impl AsFd) -> io::Result<Peer> {
    // SAFETY: a `ucred` is made of integers, for which zero is a valid value.
    let mut ucred: libc::ucred = unsafe { mem::zeroed() };
    let mut length = mem::size_of::<libc::ucred>() as socklen_t;
    let (socket, into) = (stream.as_fd().as_raw_fd(), (&raw mut ucred).cast());
    // SAFETY: `ucred` and `length` live across the call, `length` is the size of `ucred`, and the kernel writes no more than that.
    let status = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, into, &mut length) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer { pid: u32::try_from(ucred.pid).unwrap_or(0), user: ucred.uid })
}

/// A handle on what is at a path itself, were it a link: it can be looked at, and changed by [`through`].
///
/// # Errors
/// Nothing is there, or it is out of reach.
pub fn at_path(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)
}

/// A path that leads to what a handle stands for, whatever is at its own path by now.
pub fn through(handle: &File) -> PathBuf {
    format!("/proc/self/fd/{}", handle.as_raw_fd()).into()
}

/// The user that this process runs as.
pub fn own_user() -> u32 {
    // SAFETY: the call takes nothing, touches nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// The sockets that a service manager has opened for this process (`LISTEN_FDS`, sd_listen_fds(3)), in its order; the variables are
/// taken away. To be called before other threads are started, and once.
///
/// # Errors
/// One of them is no open file.
pub fn given_at_start() -> io::Result<Vec<OwnedFd>> {
    let mut given = ListenFd::from_env();
    let mut all = Vec::new();
    for at in 0..given.len() {
        if let Some(descriptor) = given.take_raw_fd(at)? {
            // SAFETY: the service manager left this descriptor open for this process alone, and `take_raw_fd` gives it out once.
            let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
            fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
            all.push(descriptor);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::UdpSocket,
        os::unix::net::UnixStream,
    };

    use super::*;

    #[test]
    fn open_files_arrive_in_order_however_many_and_what_follows_them_is_untouched() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let sockets: Vec<UdpSocket> = (0..AT_ONCE + 3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        here.write_all(b"before").unwrap();
        send(&here, &sockets.iter().map(AsFd::as_fd).collect::<Vec<_>>()).unwrap();
        here.write_all(b"after").unwrap();
        drop(sockets);
        let mut text = [0; 6];
        there.read_exact(&mut text).unwrap();
        let arrived = receive(&there, addresses.len()).unwrap();
        assert!(arrived.into_iter().map(|fd| UdpSocket::from(fd).local_addr().unwrap()).eq(addresses));
        there.read_exact(&mut text[..5]).unwrap();
        assert_eq!(&text[..5], b"after");
    }

    #[test]
    fn a_byte_without_an_open_file_and_an_end_are_errors() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(b"x").unwrap();
        assert_eq!(receive(&there, 1).unwrap_err().kind(), io::ErrorKind::Other);
        drop(here);
        assert_eq!(receive(&there, 1).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_other_end_is_known() {
        let (here, _there) = UnixStream::pair().unwrap();
        assert_eq!(peer(&here).unwrap(), Peer { pid: std::process::id(), user: own_user() });
    }
}
