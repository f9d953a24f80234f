//! Where a running server can be asked to hand over: `handover.sock` in its state directory, or without one an abstract socket for each
//! address that it listens on, so that whoever wants an address finds the process that has it. Must never know what is said there.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd},
        linux::net::SocketAddrExt,
        unix::{
            fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown},
            net::{SocketAddr as UnixAddr, UnixListener, UnixStream},
        },
    },
    path::{self, Path, PathBuf},
};

use crate::{
    config::model::Server,
    sys::descriptors::{at_path, own_user, through},
};

/// The file's name in the state directory.
const FILE: &str = "handover.sock";
/// Longest path that a Unix socket can have, in bytes.
const PATH_BYTES_MAX: usize = 107;

/// One place to ask at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// A name that only this network namespace knows.
    Name(String),
}

/// The places at which this process is asked, open.
#[derive(Debug, Default)]
pub struct Doors {
    open: Vec<UnixListener>,
    /// Those of the process before that this one has no use for.
    superseded: Vec<UnixListener>,
}

/// The places of a server that listens on these addresses.
pub fn places(server: &Server, listen: impl IntoIterator<Item = SocketAddr>) -> Vec<Place> {
    match file(server) {
        Some(file) => vec![file],
        None => names(listen),
    }
}

/// The places at which a process that is to be taken over may be found.
pub fn places_to_look(server: &Server) -> Vec<Place> {
    let listen = server.listen.iter().map(|listen| listen.address);
    file(server).into_iter().chain(names(listen)).collect()
}

fn file(server: &Server) -> Option<Place> {
    let folder = server.state_dir.as_ref()?;
    let folder = fs::canonicalize(folder).or_else(|_| path::absolute(folder)).ok()?;
    let file = folder.join(FILE);
    (file.as_os_str().len() <= PATH_BYTES_MAX).then_some(Place::File(file))
}

fn names(listen: impl IntoIterator<Item = SocketAddr>) -> Vec<Place> {
    let known = listen.into_iter().filter(|address| address.port() != 0);
    known.map(|address| Place::Name(format!("isochrone-handover/{address}"))).collect()
}

impl Place {
    /// Connects to whoever is there.
    ///
    /// # Errors
    /// `NotFound` and `ConnectionRefused`: nobody.
    pub fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect_addr(&self.address()?)
    }

    fn address(&self) -> io::Result<UnixAddr> {
        match self {
            Place::File(path) => UnixAddr::from_pathname(path),
            Place::Name(name) => UnixAddr::from_abstract_name(name),
        }
    }

    fn is_of(&self, listener: &UnixListener) -> bool {
        let Ok(address) = listener.local_addr() else { return false };
        match self {
            Place::File(path) => address.as_pathname() == Some(path),
            Place::Name(name) => address.as_abstract_name() == Some(name.as_bytes()),
        }
    }

    /// Opens it; what a process that is gone has left there is cleared away. A file belongs to whom its folder belongs, which may be
    /// the user that this process is going to be.
    fn open(&self) -> io::Result<UnixListener> {
        let address = self.address()?;
        if let Place::File(path) = self
            && let Some(folder) = path.parent()
        {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let listener = match (UnixListener::bind_addr(&address), self) {
            (Err(error), Place::File(path)) if error.kind() == io::ErrorKind::AddrInUse => {
                if self.connect().is_ok() {
                    return Err(io::Error::other(
                        "a running process listens there: give each server its own `state-dir`",
                    ));
                }
                fs::remove_file(path)?;
                UnixListener::bind_addr(&address)?
            }
            (opened, _) => opened?,
        };
        if let Place::File(path) = self {
            restrict(path)?;
        }
        Ok(listener)
    }
}

/// Lets nobody but its owner ask at a socket's file. Only a hurdle: who asks is looked at, too. This process may be root and the
/// folder another user's, who may put anything in its place at any time: so it is done to that very socket.
fn restrict(path: &Path) -> io::Result<()> {
    let socket = at_path(path)?;
    if !socket.metadata()?.file_type().is_socket() {
        return Err(io::Error::other("something else has taken its place"));
    }
    fs::set_permissions(through(&socket), Permissions::from_mode(0o600))?;
    let folder = path.parent().and_then(|folder| fs::metadata(folder).ok());
    if let Some(folder) = folder.filter(|folder| folder.uid() != own_user()) {
        let _root_may = chown(through(&socket), Some(folder.uid()), Some(folder.gid()));
    }
    Ok(())
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Name(name) => write!(f, "@{name}"),
        }
    }
}

impl Doors {
    /// Opens all places, but for those that were handed over. One that cannot be opened costs only that nobody can ask there.
    pub fn open(places: &[Place], mut handed: Vec<UnixListener>) -> Doors {
        let mut open = Vec::new();
        for place in places {
            if let Some(at) = handed.iter().position(|listener| place.is_of(listener)) {
                open.push(handed.swap_remove(at));
                continue;
            }
            match place.open() {
                Ok(listener) => open.push(listener),
                Err(why) => tracing::warn!("a later `serve --takeover` will not find this process at {place}: {why}"),
            }
        }
        Doors { open, superseded: handed }
    }

    /// Their sockets.
    pub fn listeners(&self) -> &[UnixListener] {
        &self.open
    }

    /// Their sockets, to be handed over.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.iter().map(AsFd::as_fd)
    }

    /// The process before has ended: what is left of its doors goes.
    pub fn clear_superseded(&mut self) {
        self.superseded.drain(..).for_each(|listener| remove(&listener));
    }

    /// Nobody can ask any more, and nobody goes on with them.
    pub fn close(self) {
        self.open.iter().for_each(remove);
    }
}

fn remove(listener: &UnixListener) {
    let address = listener.local_addr();
    if let Some(path) = address.as_ref().ok().and_then(|address| address.as_pathname()).map(Path::to_owned) {
        let _left_for_the_next_start = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &tempfile::TempDir) -> Place {
        Place::File(folder.path().join(FILE))
    }

    #[test]
    fn a_file_of_a_process_that_is_gone_is_cleared_away_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let Place::File(path) = place(&folder) else { unreachable!() };
        let first = Doors::open(&[place(&folder)], Vec::new());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(place(&folder).connect().is_ok());
        assert!(Doors::open(&[place(&folder)], Vec::new()).open.is_empty());
        assert!(place(&folder).connect().is_ok());
        drop(first); // as a process that is killed
        assert_eq!(place(&folder).connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let second = Doors::open(&[place(&folder)], Vec::new());
        assert!(place(&folder).connect().is_ok());
        second.close();
        assert!(!path.exists());
    }

    #[test]
    fn a_door_that_is_handed_over_stays_and_one_without_use_goes_when_it_is_time() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let first = Doors::open(&[place(&folders[0])], Vec::new());
        let handed = || first.open.iter().map(|listener| listener.try_clone().unwrap()).collect();
        assert_eq!(Doors::open(&[place(&folders[0])], handed()).superseded.len(), 0);
        let mut next = Doors::open(&[place(&folders[1])], handed());
        drop(first);
        assert!(place(&folders[0]).connect().is_ok() && place(&folders[1]).connect().is_ok());
        next.clear_superseded();
        assert_eq!(place(&folders[0]).connect().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_name_is_known_while_its_process_lives() {
        let address: SocketAddr = "127.0.0.1:5300".parse().unwrap();
        let names = names([address, "127.0.0.1:0".parse().unwrap()]);
        assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["@isochrone-handover/127.0.0.1:5300"]);
        let name = Place::Name(format!("isochrone-test/{}", std::process::id()));
        let doors = Doors::open(std::slice::from_ref(&name), Vec::new());
        assert!(name.connect().is_ok());
        assert!(Doors::open(std::slice::from_ref(&name), Vec::new()).open.is_empty());
        drop(doors);
        assert_eq!(name.connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
