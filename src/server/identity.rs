//! Keeps the certificate of the encrypted transports up to date: notices that its files were replaced and takes them up, or
//! keeps the one in use and says why.

use std::sync::Arc;

use super::{live::Live, watch::Files};
use crate::{
    config::{
        TlsIdentity,
        identity::IdentityFiles,
        model::{Config, Encrypted},
    },
    transport::CurrentIdentity,
};

/// What is needed to follow the files of one certificate and its key.
pub struct Keeper {
    /// What handshakes are made with.
    pub current: Arc<CurrentIdentity>,
    files: IdentityFiles,
    watched: Files,
    /// Why the newest files were refused, while they are.
    refused: Option<String>,
}

impl Keeper {
    /// Begins with what the configuration has read.
    pub fn new(encrypted: &Encrypted) -> Keeper {
        let files = encrypted.files.clone();
        let watched = watch(&files);
        Keeper { current: CurrentIdentity::new(&newest(encrypted)), watched, files, refused: None }
    }

    /// A reload has read the files of the new configuration. One without them leaves what is in use: the transports serve on
    /// until the next start.
    pub fn take_up(&mut self, config: &Config) {
        let Some(encrypted) = &config.server.encrypted else { return };
        self.files = encrypted.files.clone();
        self.watched = watch(&self.files);
        self.refused = None;
        self.current.replace(&newest(encrypted));
    }

    /// To be called now and then: looks at the files.
    pub fn follow(&mut self, live: &Live) {
        let Some(changed) = self.watched.settled_change() else { return };
        match TlsIdentity::load(&self.files) {
            Ok(identity) => {
                self.current.replace(&identity);
                tracing::info!("certificate taken up: {} was replaced", changed.display());
                live.reload_succeeded(self.refused.take());
            }
            Err(errors) => {
                let why: Vec<String> = errors.iter().map(|error| self.files.explain(error)).collect();
                let why = why.join("; ");
                tracing::error!("certificate refused, the one in use stays: {why}");
                live.reload_failed(why.clone());
                self.refused = Some(why);
            }
        }
    }
}

/// Read once more now that the files are watched: they may have been replaced since the configuration was read.
fn newest(encrypted: &Encrypted) -> TlsIdentity {
    TlsIdentity::load(&encrypted.files).unwrap_or_else(|_| encrypted.identity.clone())
}

fn watch(files: &IdentityFiles) -> Files {
    Files::at([&files.certificate, &files.key])
}
