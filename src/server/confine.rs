//! Gives up what a server does not need any more once its sockets are open: being root, capabilities, all files but those that reloads
//! and state need, most of what a kernel offers. All of it before the first thread starts: some of it holds for the calling thread and
//! for those that it starts.
//!
//! What stays within reach is listed by purpose in `read_again`, `written` and `of_the_host`, and nowhere else.

use std::{
    env,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, chown},
    path::{Path, PathBuf},
};

use super::{ServeError, world::World};
use crate::{
    admin::status::ConfinementStatus,
    config::{
        Config, Problem, Report,
        model::{LogTarget, Server},
    },
    sys::{
        privileges::{self, Account, CAP_DAC_OVERRIDE},
        sandbox::{self, FilesRestricted, Grants},
    },
};

/// What the process has given up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Who it is: a name, or a number.
    user: String,
    /// `None`: files are restricted by their permissions alone.
    files: Option<FilesRestricted>,
    /// System calls are filtered.
    calls: bool,
}

/// Files that a reload reads again, by what they are. Each key of the configuration that names a file to be read has its line here.
fn read_again(config: &Config, path: &Path) -> Vec<(&'static str, PathBuf)> {
    let mut files = vec![("configuration", path.to_owned())];
    let mut add = |what, path: &PathBuf| files.push((what, path.clone()));
    config.server.cookie_secret_file.iter().for_each(|path| add("file of cookie secrets", path));
    if let Some(encrypted) = &config.server.encrypted {
        add("certificate", &encrypted.files.certificate);
        add("key of the certificate", &encrypted.files.key);
    }
    config.admin.token_file.iter().for_each(|path| add("token file", path));
    config.geo.databases.iter().for_each(|path| add("location database", path));
    config.geo.asn_database.iter().for_each(|path| add("ASN database", path));
    config.latency.measurements.iter().for_each(|path| add("file of measurements", path));
    if let Some(cluster) = &config.cluster {
        cluster.credentials.iter().for_each(|path| add("NATS credentials", path));
        cluster.ca.iter().for_each(|path| add("NATS authority", path));
    }
    for zone in &config.zones {
        let texts = zone.texts.iter().filter(|text| text.folder.is_some());
        texts.for_each(|text| add("zone file", &PathBuf::from(&text.spot.source.name)));
        zone.dnssec_keys.iter().for_each(|key| add("signing key", &key.path));
    }
    files
}

/// Folders that are written to, by what is kept there. Each key of the configuration that names something to be written has its line
/// here.
fn written(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let state = config.server.state_dir.iter().map(|path| ("state", path.clone()));
    state.chain(log_folder(config).map(|folder| ("query log", folder))).collect()
}

fn log_folder(config: &Config) -> Option<PathBuf> {
    match &config.query_log.as_ref()?.target {
        LogTarget::File(path) => Some(Path::new(".").join(path.parent()?)),
        LogTarget::Stdout => None,
    }
}

/// What the host has for every program: how names are looked up, whom certificates are trusted by, what the metrics of the process are
/// read from. Folders where files are replaced by renaming.
fn of_the_host() -> Grants {
    let mut read: Vec<PathBuf> = [
        "/etc", // resolv.conf, hosts, nsswitch.conf, ssl
        "/usr",
        "/lib",
        "/lib64",
        "/run/systemd/resolve",
        "/run/NetworkManager",
        "/run/resolvconf",
        "/run/connman",
        "/proc/self",
        "/proc/stat",
        "/proc/meminfo",
        "/proc/sys/kernel",
        "/proc/sys/net",
        "/proc/sys/vm",
        "/sys/fs/cgroup",
        "/sys/devices/system/cpu",
        "/dev/urandom",
    ]
    .map(PathBuf::from)
    .into();
    read.extend(env::current_exe()); // where a panic finds the names of its functions
    let elsewhere = ["/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"].map(PathBuf::from);
    read.extend(elsewhere.iter().flat_map(|file| folders_of(file)));
    read.extend(env::var_os("SSL_CERT_FILE").iter().flat_map(|file| folders_of(Path::new(file))));
    read.extend(env::var_os("SSL_CERT_DIR").iter().flat_map(|folders| env::split_paths(folders).collect::<Vec<_>>()));
    Grants { read, write: vec!["/dev/null".into()] }
}

/// The folders through which a file is reached, so that one which takes its place is, too: the folder that it is named in, and the
/// one that it really is in. The file alone where that is the root of everything.
fn folders_of(file: &Path) -> Vec<PathBuf> {
    let real = fs::canonicalize(file).ok();
    let folder = |path: &Path| match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
        Some(folder) if fs::canonicalize(folder).is_ok_and(|real| real != Path::new("/")) => folder.to_owned(),
        _ => path.to_owned(),
    };
    std::iter::once(folder(file)).chain(real.as_deref().map(folder)).collect()
}

fn grants(config: &Config, path: &Path) -> Grants {
    let mut grants = of_the_host();
    grants.read.extend(read_again(config, path).iter().flat_map(|(_, file)| folders_of(file)));
    grants.write.extend(written(config).into_iter().map(|(_, folder)| folder));
    grants
}

/// Makes the state directory where it is missing, while the process may still do so, for the user that it is going to be.
///
/// # Errors
/// It cannot be made.
pub fn make_state_dir(server: &Server) -> Result<(), Report> {
    let Some(path) = server.state_dir.as_ref().filter(|path| !path.exists()) else { return Ok(()) };
    let above = path.parent().map_or(Ok(()), |above| DirBuilder::new().recursive(true).create(above));
    let made = above.and_then(|()| DirBuilder::new().mode(0o700).create(path));
    let for_whom = server.user.as_ref().filter(|_| privileges::current().0 == 0);
    let given = |account: &Account| chown(path, Some(account.uid), Some(account.gid));
    made.and_then(|()| for_whom.map_or(Ok(()), given)).map_err(|reason| {
        Problem::new(format!("the state directory `{}` cannot be made: {reason}", path.display()))
            .with_help("make it, or name another in `state-dir` of [server]")
            .into()
    })
}

/// Makes the folder of the query log where it is missing: later it would be out of reach. Where that fails, the log says so.
fn make_log_folder(config: &Config) {
    let Some(path) = log_folder(config).filter(|path| !path.exists()) else { return };
    let made = DirBuilder::new().mode(0o750).create(&path);
    let for_whom = config.server.user.as_ref().filter(|_| privileges::current().0 == 0);
    if let (Ok(()), Some(account)) = (made, for_whom) {
        let _said_by_the_log = chown(&path, Some(account.uid), Some(account.gid));
    }
}

/// Becomes the user of the configuration, gives up what is not needed any more, and says what is missing afterwards.
///
/// # Errors
/// The process cannot become that user, or that user cannot read or write what reloads and state need.
pub fn confine(world: &World) -> Result<Confinement, ServeError> {
    let server = &world.config.server;
    if server.sandbox {
        make_log_folder(&world.config);
    }
    become_user(server.user.as_ref())?;
    if let Some(account) = &server.user {
        let files = read_again(&world.config, &world.path);
        let problems = out_of_reach(&files, server.state_dir.as_deref(), account);
        if !problems.is_empty() {
            return Err(ServeError::Config(Report::new(problems)));
        }
    }
    let (uid, gid) = privileges::current();
    let named = privileges::account_of(uid).ok().flatten();
    let mut done =
        Confinement { user: named.map_or(format!("{uid}:{gid}"), |account| account.name), ..Default::default() };
    if server.sandbox {
        done.restrict(&grants(&world.config, &world.path));
    }
    done.tell(uid == 0, server.sandbox);
    Ok(done)
}

fn become_user(account: Option<&Account>) -> Result<(), ServeError> {
    let (uid, gid) = privileges::current();
    // Without an account of its own a server that was started as root still reads and writes files of other owners.
    let keep = (uid == 0 && account.is_none()).then_some(CAP_DAC_OVERRIDE);
    privileges::bound_capabilities(keep);
    if let Some(account) = account.filter(|account| (account.uid, account.gid) != (uid, gid)) {
        privileges::become_account(account).map_err(|reason| {
            let name = &account.name;
            ServeError::Confine(format!(
                "cannot become `{name}` (`user` of [server]): {reason}; start as root, in a container with CAP_SETUID and \
                 CAP_SETGID, or start as that user and leave `user` empty"
            ))
        })?;
    }
    // A filter of somebody else's (a service manager's) may refuse this; then it stands in for it.
    let given_up = privileges::drop_capabilities(keep).and_then(|()| privileges::forbid_new_privileges());
    if let Err(error) = given_up {
        tracing::warn!(%error, "capabilities could not be given up");
    }
    Ok(())
}

/// What reloads and state need and the user has no access to.
fn out_of_reach(files: &[(&'static str, PathBuf)], state_dir: Option<&Path>, account: &Account) -> Vec<Problem> {
    let name = &account.name;
    let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let unreadable = files.iter().filter(|(_, path)| File::open(path).is_err_and(denied)).map(|(what, path)| {
        let message = format!(
            "the user `{name}` cannot read the {what} `{}`, which no reload could take up then",
            path.display()
        );
        Problem::new(message).with_help(remedy(path, account))
    });
    let unwritable = state_dir.and_then(|folder| {
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        // Nothing but files: a mounted disk has a folder of root's, and a FIFO would be waited for.
        let files = files.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).map(|entry| entry.path());
        let strange = files.into_iter().find(|path| File::open(path).is_err_and(denied));
        let path = match tempfile::tempfile_in(folder) {
            Err(_) => folder.to_owned(),
            Ok(_) => strange?,
        };
        let doing = if path == *folder { "write to" } else { "read" };
        let message = format!("the user `{name}` cannot {doing} `{}`, where state is kept", path.display());
        let (uid, gid) = (account.uid, account.gid);
        Some(Problem::new(message).with_help(format!("run: chown -R {uid}:{gid} {}", folder.display())))
    });
    unreadable.chain(unwritable).collect()
}

/// What to do about a file that cannot be read: often it is a folder above it that lets nobody through.
fn remedy(path: &Path, account: &Account) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let shut = whole.ancestors().skip(1).filter(|folder| folder.symlink_metadata().is_ok()).find(|folder| {
        folder.join(".").symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    });
    match shut {
        Some(folder) => format!(
            "the folder `{}` is closed to it; keep the files in one of their own, such as /etc/isochrone, or run: chmod o+x {}",
            folder.display(),
            folder.display()
        ),
        None => format!("run: chgrp {} {} && chmod g+r {}", account.gid, path.display(), path.display()),
    }
}

impl Confinement {
    /// What the kernel cannot do is told, and no reason not to serve.
    fn restrict(&mut self, grants: &Grants) {
        if let Err(error) = privileges::forbid_core_dumps() {
            tracing::warn!(%error, "core dumps could not be forbidden");
        }
        match sandbox::restrict_files(grants) {
            Ok(restricted) => self.files = restricted,
            Err(error) => tracing::warn!(%error, "landlock failed"),
        }
        match sandbox::restrict_calls() {
            Ok(()) => self.calls = true,
            Err(why) => tracing::warn!("system calls are not filtered (seccomp): {why}"),
        }
    }

    fn tell(&self, is_root: bool, is_wanted: bool) {
        if is_root {
            tracing::warn!(
                "the server runs as root: name a user to run as in `user` of [server], such as one made by `useradd \
                 --system isochrone`"
            );
        }
        if is_wanted && self.files.is_none() {
            tracing::info!("this kernel has no landlock: the server's files are guarded by their permissions alone");
        }
        tracing::info!(
            user = self.user,
            landlock = self.files.map(|files| files.abi),
            seccomp = self.calls,
            "confined"
        );
    }

    /// As the admin interface tells it.
    pub fn status(&self) -> ConfinementStatus {
        ConfinementStatus {
            user: self.user.clone(),
            landlock: self.files.map(|files| files.abi),
            landlock_whole: self.files.is_some_and(|files| files.is_whole),
            seccomp: self.calls,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_reached_through_its_folder_and_through_the_one_that_it_is_really_in() {
        let folder = tempfile::tempdir().unwrap();
        let (live, archive) = (folder.path().join("live"), folder.path().join("archive"));
        fs::create_dir(&live).unwrap();
        fs::create_dir(&archive).unwrap();
        fs::write(archive.join("key1.pem"), "").unwrap();
        symlink("../archive/key1.pem", live.join("key.pem")).unwrap();
        let real = fs::canonicalize(&archive).unwrap();
        assert_eq!(folders_of(&live.join("key.pem")), [live.clone(), real]);
        assert_eq!(folders_of(&live.join("absent")), [live]);
        assert_eq!(folders_of(Path::new("isochrone.toml"))[0], Path::new("."));
        assert!(folders_of(Path::new("/isochrone.toml")).iter().all(|path| path == Path::new("/isochrone.toml")));
    }

    #[test]
    fn what_the_host_has_for_all_is_not_everything() {
        let read = of_the_host().read;
        for outside in ["/home/x", "/root/.ssh/id_ed25519", "/var/lib/x", "/tmp/x", "/srv/x", "/proc/1/environ"] {
            assert!(!read.iter().any(|granted| Path::new(outside).starts_with(granted)), "{outside}");
        }
    }

    #[test]
    fn a_missing_state_directory_is_made_for_the_user_that_the_server_becomes() {
        assert_eq!(privileges::current().0, 0, "these tests are for root");
        let folder = tempfile::tempdir().unwrap();
        let account = Account { name: "x".into(), uid: 4_242, gid: 4_343, groups: vec![4_343] };
        let path = folder.path().join("deep/state");
        let text = "[zones.\"x.example\"]\nnameservers = [\"ns1.example.net.\"]\n[regions.a]\nlocation = \"FRA\"\nendpoints = [\"192.0.2.1\"]\n";
        let source = crate::config::Source { name: "test".into(), text: text.into() };
        let mut server = crate::config::parse(source.into(), Path::new("")).unwrap_or_else(|e| panic!("{e}")).server;
        (server.state_dir, server.user) = (Some(path.clone()), Some(account));
        make_state_dir(&server).unwrap();
        let made = fs::metadata(&path).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!((made.uid(), made.gid(), made.permissions().mode() & 0o777), (4_242, 4_343, 0o700));
    }
}
