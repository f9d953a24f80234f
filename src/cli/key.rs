//! `isochrone key`: signing keys of zones, and keys by which NATS knows a server.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};

use super::terminal::print;
use crate::{wire::Name, zone::sign::KeyPair};

/// Make the keys that zones are signed with (DNSSEC), and those by which NATS knows a server
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    New(NewArgs),
    Node(NodeArgs),
}

/// Make a zone's signing key (ECDSA P-256, for all its records) and print its DS record
#[derive(Debug, Args)]
#[command(after_help = "Example:
  isochrone key new geo.example.com --out /etc/isochrone/geo.example.com.key

Every server of the zone needs the same file. Name it as `dnssec-key` of the zone, and give the DS record to the zone above
when all servers answer with signatures; `isochrone delegation ZONE` shows it again.")]
struct NewArgs {
    /// The zone
    #[arg(value_parser = parse_zone)]
    zone: Name,
    /// The file to write, readable by you alone; one that exists is left as it is [default: ZONE.key]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Make the key by which NATS knows a server of a cluster (an nkey) and print its public half
#[derive(Debug, Args)]
#[command(after_help = "Example:
  isochrone key node --out /etc/isochrone/nats.key

Each server of the cluster gets one of its own. Name the file as `credentials` in [cluster], and write the public half into the
configuration of the NATS servers, as `nkey` of a user.")]
struct NodeArgs {
    /// The file to write, readable by you alone; one that exists is left as it is
    #[arg(long, value_name = "FILE", default_value = "nats.key")]
    out: PathBuf,
}

fn parse_zone(text: &str) -> Result<Name, String> {
    Name::parse(text, &Name::root()).map_err(|error| error.to_string())
}

/// Runs a command on keys.
pub fn run(args: &KeyArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        KeyCommand::New(args) => new(args),
        KeyCommand::Node(args) => node(args),
    }
}

fn node(args: &NodeArgs) -> anyhow::Result<ExitCode> {
    let pair = nkeys::KeyPair::new_user();
    let seed = pair.seed().context("the key that was made has no seed")?;
    write(&args.out, &format!("{seed}\n"), "a server that loses its key has to be made known to NATS anew")?;
    let path = args.out.display();
    eprintln!(
        "Wrote {path}. On its server write\n\n  [cluster]\n  credentials = \"{path}\"\n\nand as `nkey` of its user in NATS:\n"
    );
    print(&format!("{}\n", pair.public_key()))?;
    Ok(ExitCode::SUCCESS)
}

fn new(args: &NewArgs) -> anyhow::Result<ExitCode> {
    let zone = &args.zone;
    let path = args.out.clone().unwrap_or_else(|| default_path(zone));
    let (pair, text) = KeyPair::generate(zone)?;
    write(&path, &text, "a key that is lost takes its zone down")?;
    let zone_text = zone.to_string();
    let section = zone_text.trim_end_matches('.');
    eprintln!(
        "Wrote {}, the key of {zone} Copy it to every server of the zone, and write\n\n  [zones.\"{section}\"]\n  \
         dnssec-key = \"{}\"\n\nWhen all of them answer with signatures, give this to the zone above:\n",
        path.display(),
        path.display(),
    );
    print(&format!("{zone} 3600 IN DS {}\n", pair.ds_text(zone)))?;
    Ok(ExitCode::SUCCESS)
}

/// `ZONE.key`, with bytes that could lead elsewhere replaced.
fn default_path(zone: &Name) -> PathBuf {
    let name = zone.to_string();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = name.trim_end_matches('.').chars().map(plain).collect();
    PathBuf::from(format!("{}.key", if name.is_empty() { "root" } else { &name }))
}

/// Writes a file that its owner alone may read; never over another one, since what is lost cannot be made again.
fn write(path: &Path, text: &str, why: &str) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = || format!("cannot write {}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(cannot)?;
    file.write_all(text.as_bytes()).with_context(cannot)?;
    file.as_file().sync_all().with_context(cannot)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(anyhow!("{} exists and was left as it is: {why}; name another file with --out", path.display()))
        }
        Err(error) => Err(error.error).with_context(cannot),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_file_is_private_and_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zone.key");
        write(&path, "one", "why").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = write(&path, "two", "why").unwrap_err().to_string();
        assert!(error.contains("exists and was left as it is"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
    }

    #[test]
    fn the_file_is_named_after_the_zone() {
        let named = |zone: &str| default_path(&zone.parse().unwrap()).display().to_string();
        assert_eq!(named("Geo.Example.com."), "geo.example.com.key");
        assert_eq!(named("."), "root.key");
        assert_eq!(named("a\\/b.example"), "a_b.example.key");
    }
}
