//! Who the server is to clients of encrypted transports: a certificate with its chain, and the private key that belongs to it,
//! out of two PEM files. Knows nothing of connections.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    Error, InconsistentKeys,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};

use super::{files, value::quote};

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// PEM, the server's certificate first, then those that lead to the root.
    pub certificate: PathBuf,
    /// PEM: PKCS #8, PKCS #1 or SEC 1, without a passphrase.
    pub key: PathBuf,
}

/// A certificate chain and the key that belongs to its first certificate.
#[derive(Debug, Clone)]
pub struct TlsIdentity(Arc<CertifiedKey>);

/// Why there is no identity. Each says what follows the name of the file in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityError {
    /// The certificate cannot be used.
    Certificate(String),
    /// The key cannot be used.
    Key(String),
    /// Each is sound, but they are no pair.
    Mismatch,
}

/// Largest file of a certificate chain or key, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl TlsIdentity {
    /// Reads both files.
    ///
    /// # Errors
    /// What is wrong with either, or with the two as a pair.
    pub fn load(files: &IdentityFiles) -> Result<TlsIdentity, Vec<IdentityError>> {
        match (read_chain(&files.certificate), read_key(&files.key)) {
            (Ok(chain), Ok(key)) => pair(chain, key).map_err(|error| vec![error]),
            (chain, key) => {
                let certificate = chain.err().map(IdentityError::Certificate);
                Err(certificate.into_iter().chain(key.err().map(IdentityError::Key)).collect())
            }
        }
    }

    /// What is wrong with one of the files where there is no path of the other.
    pub(super) fn fault_of_one(certificate: Option<&Path>, key: Option<&Path>) -> Option<IdentityError> {
        let certificate = certificate.and_then(|path| read_chain(path).err()).map(IdentityError::Certificate);
        certificate.or_else(|| key.and_then(|path| read_key(path).err()).map(IdentityError::Key))
    }

    /// As TLS wants it.
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.0
    }
}

impl IdentityFiles {
    /// An error of [`TlsIdentity::load`] as a sentence.
    pub fn explain(&self, error: &IdentityError) -> String {
        let name = |path: &Path| quote(&path.display().to_string());
        match error {
            IdentityError::Certificate(why) => format!("the certificate {} {why}", name(&self.certificate)),
            IdentityError::Key(why) => format!("the key {} {why}", name(&self.key)),
            IdentityError::Mismatch => {
                format!("the key {} does not belong to the certificate {}", name(&self.key), name(&self.certificate))
            }
        }
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = files::read_bytes(path, FILE_BYTES_MAX)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err("holds no PEM certificate (`-----BEGIN CERTIFICATE-----`)".into()),
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("is not sound PEM: {error}")),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = files::read_bytes(path, FILE_BYTES_MAX)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound if text.windows(9).any(|word| word == b"ENCRYPTED") => {
            "is protected by a passphrase; `openssl pkey` takes it off".into()
        }
        pem::Error::NoItemsFound => "holds no PEM private key (`-----BEGIN PRIVATE KEY-----`)".into(),
        error => format!("is not sound PEM: {error}"),
    })
}

fn pair(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<TlsIdentity, IdentityError> {
    let provider = ring::default_provider();
    let key = provider.key_provider.load_private_key(key).map_err(|_| {
        IdentityError::Key("is of a kind that is not supported: it must be ECDSA (P-256, P-384), Ed25519 or RSA".into())
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Unknown: the key cannot tell its public half, so that only a handshake would show a mismatch.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(TlsIdentity(Arc::new(certified))),
        Err(Error::InconsistentKeys(_)) => Err(IdentityError::Mismatch),
        Err(_) => Err(IdentityError::Certificate("holds something that is no X.509 certificate of version 3".into())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["ns1.example.com".into()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn load(certificate: &str, key: &str) -> Result<TlsIdentity, Vec<IdentityError>> {
        let folder = tempfile::tempdir().unwrap();
        let files = IdentityFiles { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        fs::write(&files.certificate, certificate).unwrap();
        fs::write(&files.key, key).unwrap();
        TlsIdentity::load(&files)
    }

    #[test]
    fn a_pair_is_taken_with_its_chain_and_in_one_file_too() {
        let (certificate, key) = made();
        let chain = format!("{certificate}{}", made().0);
        assert_eq!(load(&chain, &key).unwrap().certified_key().cert.len(), 2);
        let both = format!("{key}{certificate}");
        assert!(load(&both, &both).is_ok());
    }

    #[test]
    fn what_is_no_pair_is_told_apart() {
        let ((certificate, key), (_, other)) = (made(), made());
        let no_certificate = "holds no PEM certificate (`-----BEGIN CERTIFICATE-----`)".to_string();
        let no_key = "holds no PEM private key (`-----BEGIN PRIVATE KEY-----`)".to_string();
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let empty = |kind: &str| format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
        let (odd_certificate, odd_key) = (empty("CERTIFICATE"), empty("PRIVATE KEY"));
        let cases: Vec<(&str, &str, Vec<IdentityError>)> = vec![
            (&certificate, &other, vec![IdentityError::Mismatch]),
            ("", "", vec![IdentityError::Certificate(no_certificate.clone()), IdentityError::Key(no_key.clone())]),
            (&key, &certificate, vec![IdentityError::Certificate(no_certificate), IdentityError::Key(no_key)]),
            (
                &certificate,
                encrypted,
                vec![IdentityError::Key("is protected by a passphrase; `openssl pkey` takes it off".into())],
            ),
            (
                &odd_certificate,
                &key,
                vec![IdentityError::Certificate("holds something that is no X.509 certificate of version 3".into())],
            ),
            (
                &certificate,
                &odd_key,
                vec![IdentityError::Key(
                    "is of a kind that is not supported: it must be ECDSA (P-256, P-384), Ed25519 or RSA".into(),
                )],
            ),
        ];
        for (certificate, key, expected) in cases {
            assert_eq!(load(certificate, key).unwrap_err(), expected, "{certificate}{key}");
        }
        let cut = &certificate[..certificate.len() - 40];
        assert!(matches!(&load(cut, &key).unwrap_err()[..], [IdentityError::Certificate(why)] if why.contains("PEM")));
    }
}
