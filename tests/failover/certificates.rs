//! Certificates of every kind, as files that nginx shows.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

use crate::program::Folder;

/// Whom the check asks for.
pub const HOST: &str = "app.example";

/// Puts `KIND.pem` and `KIND.key` into the folder for the kinds `good`, `expired`, `wrong-name`, `self-signed`, and `ca.pem`.
pub fn make(folder: &Folder) {
    let mut authority = CertificateParams::new([]).unwrap();
    authority.distinguished_name.push(DnType::CommonName, "test authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    folder.write("ca.pem", &authority.pem());
    for (kind, host, last_year) in [
        ("good", HOST, 2100),
        ("expired", HOST, 2021),
        ("wrong-name", "other.example", 2100),
        ("self-signed", HOST, 2100),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(last_year, 1, 1));
        let made = match kind {
            "self-signed" => params.self_signed(&key).unwrap(),
            _ => params.signed_by(&key, &authority).unwrap(),
        };
        folder.write(&format!("{kind}.pem"), &made.pem());
        folder.write(&format!("{kind}.key"), &key.serialize_pem());
    }
}

/// Lets servers that are started from now on show this kind.
pub fn show(folder: &Folder, kind: &str) {
    for ending in ["pem", "key"] {
        fs::copy(folder.path().join(format!("{kind}.{ending}")), folder.path().join(format!("leaf.{ending}"))).unwrap();
    }
}
