//! What the running server does when another process takes over from it, and when it has taken over from one.

use std::time::{Duration, Instant};

use super::Live;
use crate::{
    server::{
        overrides::{self, Overrides},
        takeover::line::Cookies,
    },
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

    /// The process before this one is gone without its last word: what it decided since it told of its decisions is on the disk.
    pub fn succeed_without_a_word(&self) {
        let Some(kept) = self.state.read::<Overrides>(overrides::FILE) else { return };
        let mut control = self.control();
        for decision in kept.known() {
            control.overrides.merge(decision.clone());
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

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::{
        config::{self, Source},
        health::Board,
        routing::force::Force,
        server::{
            World,
            live::Undecided,
            overrides::{Decision, FILE, Override, Target},
            state::{StateDir, enveloped},
        },
    };

    fn live(state: StateDir) -> Arc<Live> {
        let text = "[regions.eu]\nlocation = \"FRA\"\nendpoints = [\"192.0.2.1\"]\n\
                    [zones.\"x.example\"]\nnameservers = [\"ns1.example.net.\"]\n[zones.\"x.example\".routes.www]\n";
        let source = Source { name: "isochrone.toml".into(), text: text.into() };
        let config = config::parse(Arc::new(source), Path::new("")).unwrap_or_else(|report| panic!("{report}"));
        let world = World::compile(config, Path::new("isochrone.toml")).unwrap_or_else(|report| panic!("{report}"));
        let board = Arc::new(Board::default());
        board.adopt(world.targets(), std::time::SystemTime::now());
        Live::new(Arc::new(world), board, state)
    }

    fn drain() -> Override {
        Override::new(Target::new("eu", None), Decision::Drain, 1)
    }

    fn is_drained(live: &Live) -> bool {
        live.overrides().of_region("eu").and_then(|o| o.state.force()) == Some(Force::Drain)
    }

    #[test]
    fn what_is_decided_until_the_end_goes_over_and_later_there_is_no_decision() {
        let old = live(StateDir::default());
        let offered = enveloped(&old.overrides()).unwrap();
        old.decide(drain()).unwrap();
        let last_word = old.leave();
        assert!(matches!(old.decide(drain()), Err(Undecided::Left)));
        let new = live(StateDir::default().with_handed([(FILE.into(), offered)].into()));
        assert!(!is_drained(&new));
        new.succeed(last_word);
        assert!(is_drained(&new));
        old.come_back();
        old.decide(drain()).unwrap();
    }

    #[test]
    fn what_a_process_decided_that_died_without_a_word_is_found_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let state = || StateDir::open(Some(folder.path())).unwrap();
        let old = live(state());
        let offered = enveloped(&old.overrides()).unwrap();
        let new = live(state().with_handed([(FILE.into(), offered)].into()));
        old.decide(drain()).unwrap();
        drop(old);
        assert!(!is_drained(&new));
        new.succeed_without_a_word();
        assert!(is_drained(&new));
    }

    #[test]
    fn cookies_that_the_old_one_gave_out_stay_good() {
        let (old, new) = (live(StateDir::default()), live(StateDir::default()));
        let secrets = |live: &Live| live.snapshot.load().settings.cookies;
        assert_ne!(secrets(&old), secrets(&new));
        new.take_up_cookies(&old.cookies());
        assert_eq!(secrets(&old), secrets(&new));
    }
}
