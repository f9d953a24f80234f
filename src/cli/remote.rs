//! Asking a running server through its admin interface. Knows nothing of what the answers mean.

use std::{error::Error, fmt, str::FromStr, time::Duration};

use reqwest::{Client, RequestBuilder, Url, header::CONTENT_TYPE};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    admin::http::ErrorBody,
    health::probe::tls::{TlsModes, TrustedRoots},
};

/// Where a server's admin interface is unless told otherwise.
pub const DEFAULT_ADMIN: &str = "http://127.0.0.1:8053";
/// An answer that has not come after so long is not coming; an explanation may have to read a location database first.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// The same for a change: a reload compiles everything anew.
const CHANGE_WITHIN: Duration = Duration::from_secs(60);
/// A server that does not take a connection within this is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// The address of an admin interface: `http://127.0.0.1:8053`; the scheme may be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminUrl(Url);

impl FromStr for AdminUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let full = if text.contains("://") { text.to_string() } else { format!("http://{text}") };
        let wrong = |why: String| format!("{why}; write it like {DEFAULT_ADMIN}");
        let url: Url = full.parse().map_err(|error| wrong(format!("{error}")))?;
        match url.scheme() {
            "http" | "https" => Ok(AdminUrl(url)),
            scheme => Err(wrong(format!("`{scheme}` is neither http nor https"))),
        }
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nothing takes connections there.
    #[error("no server at {url} ({reason}); start one with `isochrone serve`, or name another with --admin URL")]
    Unreachable {
        /// Where it was looked for.
        url: AdminUrl,
        /// What the system said.
        reason: String,
    },
    /// A connection, but no whole answer.
    #[error("{url} did not answer ({reason})")]
    Broken {
        /// Where it was asked.
        url: AdminUrl,
        /// What went wrong.
        reason: String,
    },
    /// It answered that it will not.
    #[error("{url} says: {error}")]
    Refused {
        /// Where it was asked.
        url: AdminUrl,
        /// The HTTP status.
        status: u16,
        /// Its reason.
        error: String,
    },
    /// Something else listens there.
    #[error("{url} is not isochrone's admin interface, or one of another version ({reason}); name it with --admin URL")]
    Stranger {
        /// Where it was asked.
        url: AdminUrl,
        /// What does not fit.
        reason: String,
    },
}

/// Somebody to ask.
#[derive(Debug, Clone)]
pub struct Remote {
    url: AdminUrl,
    client: Client,
    token: Option<String>,
}

impl Remote {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// When an `https` server cannot be verified because this host has no CA certificates.
    pub fn new(url: AdminUrl) -> anyhow::Result<Self> {
        let tls = TlsModes::new(TrustedRoots::Host);
        // Plain HTTP must work on a host without CA certificates, too.
        let config = if url.0.scheme() == "https" { tls.verified()? } else { tls.unverified() };
        let client = Client::builder()
            .tls_backend_preconfigured((*config).clone())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .user_agent(concat!("isochrone/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Remote { url, client, token: None })
    }

    /// Shows this token with every change.
    pub fn with_token(self, token: Option<String>) -> Self {
        Remote { token, ..self }
    }

    /// What the server says at `path`.
    ///
    /// # Errors
    /// Why there is no such answer.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, question: &[(&str, &str)]) -> Result<T, AskError> {
        let mut url = self.url.0.clone();
        url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        if !question.is_empty() {
            url.query_pairs_mut().extend_pairs(question);
        }
        self.answer(self.client.get(url).timeout(ANSWER_WITHIN)).await
    }

    /// What the server says to a change: `body` sent to the path of these segments. For a command that has nothing else to do
    /// meanwhile.
    ///
    /// # Errors
    /// Why there is no such answer.
    pub fn change<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<T, AskError> {
        let mut url = self.url.0.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let broken = |reason: String| AskError::Broken { url: self.url.clone(), reason };
        let body = serde_json::to_vec(body).map_err(|error| broken(error.to_string()))?;
        let mut request =
            self.client.post(url).timeout(CHANGE_WITHIN).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| broken(error.to_string()))?.block_on(self.answer(request))
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, AskError> {
        let address = || self.url.clone();
        let response = request.send().await.map_err(|error| match error.is_connect() {
            true => AskError::Unreachable { url: address(), reason: innermost(&error) },
            false => AskError::Broken { url: address(), reason: innermost(&error) },
        })?;
        let status = response.status();
        let body =
            response.bytes().await.map_err(|error| AskError::Broken { url: address(), reason: innermost(&error) })?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| AskError::Stranger { url: address(), reason: error.to_string() });
        }
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => Err(AskError::Refused { url: address(), status: status.as_u16(), error: body.error }),
            Err(_) => Err(AskError::Stranger { url: address(), reason: format!("status {status}") }),
        }
    }

    /// As [`Remote::get`], for a command that has nothing else to do meanwhile.
    ///
    /// # Errors
    /// As [`Remote::get`].
    pub fn ask<T: DeserializeOwned>(&self, path: &str, question: &[(&str, &str)]) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(self.get(path, question))?)
    }
}

/// The cause behind all wrappings: `Connection refused` rather than "error sending request".
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_may_leave_out_the_scheme() {
        for (text, shown) in [
            ("http://127.0.0.1:8053", "http://127.0.0.1:8053"),
            ("127.0.0.1:8053", "http://127.0.0.1:8053"),
            ("localhost:8053/", "http://localhost:8053"),
            ("[::1]:8053", "http://[::1]:8053"),
            ("https://dns.example.net/isochrone/", "https://dns.example.net/isochrone"),
        ] {
            assert_eq!(text.parse::<AdminUrl>().unwrap().to_string(), shown);
        }
        for text in ["", "ftp://127.0.0.1", "127.0.0.1:99999"] {
            let error = text.parse::<AdminUrl>().unwrap_err();
            assert!(error.ends_with("write it like http://127.0.0.1:8053"), "{error}");
        }
    }
}
