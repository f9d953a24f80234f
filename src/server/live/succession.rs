//! What the running server does when another process takes over from it, and when it has taken over from one.

use std::time::{Duration, Instant};

use super::Live;
use crate::{
    server::{overrides::Overrides, takeover::line::Cookies},
    wire::cookie::CookieSecrets,
};

impl Live {
    /// Another process serves: no decision is taken in and no state written from now on. All decisions up to now. Waits for the disk.
    pub fn leave(&self) -> Overrides {
        let overrides = {
            let mut control = self.control();
            control.has_left = true;
            control.overrides.clone()
        };
        self.state.leave();
        overrides
    }

    /// The other process did not come to it.
    pub fn come_back(&self) {
        self.state.come_back();
        self.control().has_left = false;
    }

    /// The last word of the process before this one, which has taken in decisions since it told of them first.
    pub fn succeed(&self, overrides: Overrides) {
        let mut control = self.control();
        control.overrides = overrides;
        if let Some(node) = self.cluster.node() {
            control.overrides.adopt(&node);
        }
        self.take_up_overrides(&mut control);
    }

    /// The secrets that were made for a configuration without a file of them.
    pub fn cookies(&self) -> Cookies {
        let control = self.control();
        let CookieSecrets { current, previous } = control.cookies;
        Cookies { current, previous, age_s: control.cookies_made.elapsed().as_secs() }
    }

    /// Goes on with the secrets of the process before, so that the cookies that it gave out stay good.
    pub fn take_up_cookies(&self, cookies: &Cookies) {
        let mut control = self.control();
        control.cookies = CookieSecrets { current: cookies.current, previous: cookies.previous };
        let now = Instant::now();
        control.cookies_made = now.checked_sub(Duration::from_secs(cookies.age_s)).unwrap_or(now);
        self.publish(&mut control, true, None);
    }
}
