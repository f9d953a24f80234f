//! `[server.encrypted]`: addresses that nothing else uses, a certificate, and the key that belongs to it.

use std::net::SocketAddr;

use super::Context;
use crate::config::{
    identity::{IdentityError, IdentityFiles, TlsIdentity},
    model::Encrypted,
    section::At,
    spec::{AdminSpec, EncryptedSpec, SELF_SIGNED, ServerSpec},
    value::quote,
};

const LISTENS_NOWHERE: &str =
    "write at least one of dot = [\"0.0.0.0\"], doq = [\"0.0.0.0\"] and doh = [\"0.0.0.0\"], or remove the section";

impl Context<'_> {
    /// `None` where something is wrong with the identity, which has been noted.
    pub(super) fn build_encrypted(
        &self,
        spec: &EncryptedSpec,
        server: &ServerSpec,
        admin: &AdminSpec,
    ) -> Option<Encrypted> {
        if spec.lists_nothing {
            self.problems.add(&spec.span, "[server.encrypted] listens nowhere", LISTENS_NOWHERE);
        }
        let listen = server.listen.value.iter().map(|at| (at.value, "plain DNS"));
        let admin = admin.listen.iter().map(|at| (at.value, "the admin interface"));
        // Those over TCP share their ports; QUIC shares UDP with plain DNS alone.
        let mut over_tcp: Vec<(SocketAddr, &str)> = listen.clone().chain(admin).collect();
        let mut over_udp: Vec<(SocketAddr, &str)> = listen.collect();
        self.note_shared(&spec.dot, "DNS over TLS", &mut over_tcp);
        self.note_shared(&spec.doq, "DNS over QUIC", &mut over_udp);
        self.note_shared(&spec.doh, "DNS over HTTPS", &mut over_tcp);

        let path = |at: &At<String>| self.folder.join(&at.value);
        let (certificate, key) = match (&spec.certificate, &spec.key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (certificate, key) => {
                let (of_certificate, of_key) = (certificate.as_ref().map(path), key.as_ref().map(path));
                let fault = TlsIdentity::fault_of_one(of_certificate.as_deref(), of_key.as_deref());
                if let (Some(fault), Some(at)) = (fault, certificate.as_ref().or(key.as_ref())) {
                    self.note_identity_error(&fault, at, at);
                }
                return None;
            }
        };
        let files = IdentityFiles { certificate: path(certificate), key: path(key) };
        let addresses = |list: &[At<SocketAddr>]| list.iter().map(|at| at.value).collect();
        let (dot, doq, doh) = (addresses(&spec.dot), addresses(&spec.doq), addresses(&spec.doh));
        match TlsIdentity::load(&files) {
            Ok(identity) => Some(Encrypted { dot, doq, doh, files, identity }),
            Err(errors) => {
                errors.iter().for_each(|error| self.note_identity_error(error, certificate, key));
                None
            }
        }
    }

    /// Notes addresses that are meant for something else already, and adds the others to those in use.
    fn note_shared(&self, list: &[At<SocketAddr>], what: &'static str, in_use: &mut Vec<(SocketAddr, &'static str)>) {
        for at in list.iter().filter(|at| at.value.port() != 0) {
            let address = quote(&at.value.to_string());
            match in_use.iter().find(|(used, _)| *used == at.value) {
                Some((_, other)) if *other == what => {
                    self.problems.add(&at.span, format!("{address} stands here twice"), "remove one of the two");
                }
                Some((_, other)) => {
                    let message = format!("{address} is meant for {other} and for {what}");
                    self.problems.add(&at.span, message, "give one of them another port");
                }
                None => in_use.push((at.value, what)),
            }
        }
    }

    fn note_identity_error(&self, error: &IdentityError, certificate: &At<String>, key: &At<String>) {
        // Named as the file has them, whose folder the reader knows.
        let named = IdentityFiles { certificate: (&certificate.value).into(), key: (&key.value).into() };
        let message = named.explain(error);
        let (at, help) = match error {
            IdentityError::Certificate(why) if why == "does not exist" => {
                (certificate, format!("{}; {SELF_SIGNED}", self.looked_for(&certificate.value)))
            }
            IdentityError::Key(why) if why == "does not exist" => {
                (key, format!("{}; it is made together with the certificate", self.looked_for(&key.value)))
            }
            IdentityError::Certificate(_) => {
                (certificate, "write the path of a PEM file with the server's certificate first, then its chain".into())
            }
            IdentityError::Key(_) => {
                (key, "write the path of a PEM file with the private key that the certificate was made for".into())
            }
            IdentityError::Mismatch => (
                key,
                "write the two files of one pair: `openssl x509 -noout -pubkey -in CERTIFICATE` and `openssl pkey -pubout \
                 -in KEY` print the same for them"
                    .into(),
            ),
        };
        self.problems.add(&at.span, message, help);
    }
}
