//! `[cluster]`: NATS servers that stand there once, files that can be read, and a name for this server.

use std::path::PathBuf;

use super::Context;
use crate::config::{
    files,
    model::Cluster,
    nats::{Credentials, NAME_BYTES_MAX, is_name_byte},
    section::At,
    spec::ClusterSpec,
    value::quote,
};

/// Largest file of credentials or certificates, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Where Linux tells the host name.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";

impl Context<'_> {
    pub(super) fn build_cluster(&self, spec: &ClusterSpec) -> Cluster {
        let mut nats: Vec<String> = Vec::new();
        for at in &spec.nats {
            if nats.contains(&at.value) {
                self.problems.add(&at.span, format!("{} stands here twice", quote(&at.value)), "remove one of the two");
            } else {
                nats.push(at.value.clone());
            }
        }
        let credentials = self.cluster_file(&spec.credentials, "credentials file", is_credentials, NO_CREDENTIALS);
        let ca = self.cluster_file(&spec.ca, "file of authorities", has_certificate, NO_CERTIFICATE);
        Cluster {
            nats,
            credentials,
            ca,
            node: self.node_name(spec),
            prefix: spec.prefix.value.clone(),
            quorum: spec.quorum,
        }
    }

    /// The path of a file, `None` for an empty one. Read here for its errors alone: what counts is read whenever a connection is made.
    fn cluster_file(&self, at: &At<String>, what: &str, fits: fn(&str) -> bool, help: &str) -> Option<PathBuf> {
        let path = (!at.value.is_empty()).then(|| self.folder.join(&at.value))?;
        match files::read_text(&path, FILE_BYTES_MAX) {
            Ok(text) if fits(&text) => {}
            Ok(_) => self.problems.add(&at.span, format!("the {what} {} holds none", quote(&at.value)), help),
            Err(why) => {
                let message = format!("the {what} {} {why}", quote(&at.value));
                self.problems.add(&at.span, message, self.looked_for(&at.value));
            }
        }
        Some(path)
    }

    fn node_name(&self, spec: &ClusterSpec) -> String {
        if !spec.node.value.is_empty() {
            return spec.node.value.clone();
        }
        let host = std::fs::read_to_string(HOST_NAME_FILE).unwrap_or_default();
        let name = node_of_host(&host);
        if name.is_empty() {
            let help = "write a name of its own for each server, for example node = \"eu-1\"";
            self.problems.add(&spec.span, "this host has no name that could stand for `node`", help);
        }
        name
    }
}

const NO_CREDENTIALS: &str = "it must be a .creds file (a user's JWT and seed), or hold the seed of a user's nkey alone \
    (`isochrone key node` makes one)";
const NO_CERTIFICATE: &str =
    "write the path of a PEM file with the certificate of the authority that signed those of the NATS servers";

fn is_credentials(text: &str) -> bool {
    Credentials::find(text).is_some()
}

fn has_certificate(text: &str) -> bool {
    text.contains("-----BEGIN CERTIFICATE-----")
}

/// The host name with `-` for what cannot stand in a subject.
fn node_of_host(host: &str) -> String {
    let fit = |c: char| if c.is_ascii() && is_name_byte(c as u8) { c } else { '-' };
    host.trim().chars().take(NAME_BYTES_MAX).map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_becomes_a_node_name() {
        assert_eq!(node_of_host("ns1.example.com\n"), "ns1-example-com");
        assert_eq!(node_of_host("\n"), "");
    }
}
