//! `user` of `[server]`: who that is on this host.

use super::Context;
use crate::{
    config::{section::At, value::quote},
    sys::privileges::{Account, account_named, account_of},
};

impl Context<'_> {
    /// The account; `None` where the process is to stay who it is.
    pub(super) fn build_user(&self, at: &At<String>) -> Option<Account> {
        if at.value.is_empty() {
            return None;
        }
        let found = resolve(&at.value).and_then(|account| match account {
            account if account.uid == 0 || account.groups.contains(&0) => Err((
                "is root, or in the group of root".to_string(),
                "name a user without privileges, or leave `user` empty".to_string(),
            )),
            account => Ok(account),
        });
        if let Err((why, help)) = &found {
            self.problems.add(&at.span, format!("the user {} {why}", quote(&at.value)), help.clone());
        }
        found.ok()
    }
}

/// A name, a number of the user database, or both numbers; else what is wrong, and what to do about it.
fn resolve(text: &str) -> Result<Account, (String, String)> {
    const MAKE: &str = "make one with: useradd --system --no-create-home --shell /usr/sbin/nologin isochrone";
    let unread = |error: std::io::Error| (format!("cannot be looked up: {error}"), "write uid:gid".to_string());
    let number = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    if let Some((user, group)) = text.split_once(':') {
        let (Some(uid), Some(gid)) = (number(user), number(group)) else {
            let help = "write a name, a uid, or uid:gid, such as \"65532:65532\"".to_string();
            return Err(("is not of the form uid:gid".into(), help));
        };
        return Ok(Account { name: text.to_string(), uid, gid, groups: vec![gid] });
    }
    if let Some(uid) = number(text) {
        let absent = || ("has no entry on this host".to_string(), format!("write uid:gid, such as \"{uid}:{uid}\""));
        return account_of(uid).map_err(unread)?.ok_or_else(absent);
    }
    account_named(text).map_err(unread)?.ok_or_else(|| ("does not exist on this host".into(), MAKE.into()))
}
