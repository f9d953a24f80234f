//! The faults, each with what the answers are to do.

use std::time::Duration;

use crate::{
    certificates,
    flaps::{Flaps, flapping},
    relay::Way,
    site::{BROAD, DEFAULTS, FAST, MANY, Site, Times},
    steps::{Expect, Outcome, Step, play},
    strange::Behaviour,
};

/// Something to run, under a name to choose it by.
pub struct Scenario {
    pub name: String,
    pub run: Box<dyn Fn() -> Vec<Outcome> + Send + Sync>,
}

/// Everything about a scenario but its name.
#[derive(Clone, Copy)]
struct Play {
    times: Times,
    regions: u8,
    /// Text of the check without its times.
    check: &'static str,
    /// What becomes of packets to a region and back, where a relay is to carry them.
    links: fn(usize) -> Option<(Way, Way)>,
    /// Starts the servers; returns variables for the program.
    prepare: fn(&mut Site) -> Vec<(&'static str, String)>,
    /// Changes the configuration.
    config: fn(String) -> String,
    steps: fn(&Times) -> Vec<Step>,
}

const HTTP: &str = "type = \"http\"\npath = \"/health\"";
const HTTP_BODY: &str = "type = \"http\"\npath = \"/health\"\nexpect-body = \"all is well\"";
const HTTPS: &str = "type = \"https\"\npath = \"/health\"\nhost = \"app.example\"";

/// nginx in two regions, fast probes, nothing that happens.
const NOTHING: Play = Play {
    times: FAST,
    regions: 2,
    check: HTTP,
    links: |_| None,
    prepare: with_nginx,
    config: |text| text,
    steps: |_| vec![],
};
const STRANGE: Play = Play { prepare: with_strange, ..NOTHING };
const SECURE: Play = Play { prepare: with_certificates, check: HTTPS, ..NOTHING };

/// gdnsd as it comes, and with as many failures and successes as isochrone asks for.
pub const RIVALS: [(&str, &str); 2] = [
    ("gdnsd", "plugin => http_status, url_path => /health"),
    (
        "gdnsd 3/2/2",
        "plugin => http_status, url_path => /health, timeout => 4, down_thresh => 3, ok_thresh => 2, up_thresh => 2",
    ),
];

/// The ones of every run, short.
pub fn short() -> Vec<Scenario> {
    let at_the_timeout = |name, play: Play| scenario(name, Play { times: BROAD, ..play }, false);
    let mut all = vec![
        scenario("refused, defaults", Play { times: DEFAULTS, ..REFUSED }, false),
        scenario("black hole, defaults", Play { times: DEFAULTS, ..BLACK_HOLE }, false),
        scenario("refused", REFUSED, false),
        scenario("reset", RESET, false),
        scenario("black hole", BLACK_HOLE, false),
        scenario("half-open", HALF_OPEN, false),
        at_the_timeout("slow, just under the timeout", JUST_UNDER),
        at_the_timeout("slow, just over the timeout", JUST_OVER),
        scenario("status 500", STATUS, false),
        scenario("body mismatch", BODY, false),
        scenario("TLS expired", Play { steps: |times| shown(times, |site| show(site, "expired")), ..SECURE }, false),
        scenario(
            "TLS wrong name",
            Play { steps: |times| shown(times, |site| show(site, "wrong-name")), ..SECURE },
            false,
        ),
        scenario(
            "TLS self-signed",
            Play { steps: |times| shown(times, |site| show(site, "self-signed")), ..SECURE },
            false,
        ),
        scenario(
            "30 % loss one way",
            Play { steps: |_| lossy_in(Duration::from_secs(30)), times: DEFAULTS, ..NOTHING },
            false,
        ),
        scenario(
            "30 % loss on the way back",
            Play { steps: |_| lossy_back(Duration::from_secs(30)), ..RELAYED },
            false,
        ),
        scenario(
            "30 % loss both ways",
            Play { steps: |_| lossy_both(Duration::from_secs(30)), times: DEFAULTS, ..NOTHING },
            false,
        ),
        scenario("delay and reordering", REORDERED, false),
        scenario("partition, then another", PARTITION, false),
        scenario("all regions down", ALL_DOWN, false),
        scenario("prober cut off", CUT_OFF, false),
        scenario("prober cut off while a is down", CUT_OFF_BESIDE, false),
        scenario("endpoint address change", ADDRESS_CHANGE, false),
        scenario("1,000 endpoints refuse", THOUSAND_REFUSE, false),
    ];
    all.push(Scenario {
        name: "flapping".into(),
        run: Box::new(|| {
            let flaps = Flaps {
                times: &FAST,
                periods_s: &[1, 2, 3, 4, 6, 8, 10, 12, 16],
                flapping: Duration::from_secs(24),
                well: Duration::from_secs(14),
                keys: "flap-changes = 4\nflap-window = \"30s\"\nhold-down = \"4s\"\n",
                changes_max: 4,
                window: Duration::from_secs(30),
            };
            flapping(&flaps, &[])
        }),
    });
    all
}

/// All faults with the defaults, gdnsd on the same links where it can check such a thing.
pub fn long() -> Vec<Scenario> {
    let with_defaults = |name, play: Play, rivals| scenario(name, Play { times: DEFAULTS, ..play }, rivals);
    let mut all = vec![
        with_defaults("refused", REFUSED, true),
        with_defaults("reset", RESET, true),
        with_defaults("black hole", BLACK_HOLE, true),
        with_defaults("half-open", HALF_OPEN, true),
        with_defaults("slow, just under the timeout", Play { steps: |_| late(3_700, None), ..STRANGE }, true),
        with_defaults("slow, just over the timeout", Play { steps: |times| late(4_300, Some(times)), ..STRANGE }, true),
        with_defaults("status 500", STATUS, true),
        with_defaults("partition", Play { steps: partition_of_one, ..NOTHING }, true),
        with_defaults("partition, then another", PARTITION, false),
        with_defaults("body mismatch", BODY, false),
        with_defaults(
            "TLS expired",
            Play { steps: |times| shown(times, |site| show(site, "expired")), ..SECURE },
            false,
        ),
        with_defaults(
            "TLS wrong name",
            Play { steps: |times| shown(times, |site| show(site, "wrong-name")), ..SECURE },
            false,
        ),
        with_defaults(
            "TLS self-signed",
            Play { steps: |times| shown(times, |site| show(site, "self-signed")), ..SECURE },
            false,
        ),
        with_defaults("all regions down", ALL_DOWN, true),
        with_defaults("prober cut off", CUT_OFF, true),
        with_defaults("prober cut off while a is down", CUT_OFF_BESIDE, false),
        with_defaults("endpoint address change", ADDRESS_CHANGE, false),
        with_defaults("1,000 endpoints refuse", THOUSAND_REFUSE, false),
        with_defaults("1,000 endpoints silent", THOUSAND_SILENT, false),
    ];
    all.push(Scenario {
        name: "flapping".into(),
        run: Box::new(|| {
            let flaps = Flaps {
                times: &DEFAULTS,
                periods_s: &(1..=60).collect::<Vec<_>>(),
                flapping: Duration::from_secs(900),
                well: Duration::from_secs(150),
                keys: "", // 8 changes within 10 minutes, held down for a minute
                changes_max: 8,
                window: Duration::from_secs(600),
            };
            flapping(&flaps, &RIVALS)
        }),
    });
    all
}

/// What takes an hour.
pub fn hour() -> Vec<Scenario> {
    const HOUR: Duration = Duration::from_secs(3600);
    vec![
        scenario("an hour of 30 % loss to the region", Play { steps: |_| lossy_forth(HOUR), ..RELAYED }, true),
        scenario("an hour of 30 % loss from the region", Play { steps: |_| lossy_back(HOUR), ..RELAYED }, true),
        scenario(
            "an hour of 30 % loss both ways",
            Play { steps: |_| lossy_both(HOUR), times: DEFAULTS, ..NOTHING },
            true,
        ),
    ]
}

fn scenario(name: &str, play: Play, rivals: bool) -> Scenario {
    let title = name.to_owned();
    Scenario { name: title.clone(), run: Box::new(move || run(&title, &play, rivals)) }
}

fn run(name: &str, to_play: &Play, rivals: bool) -> Vec<Outcome> {
    let mut site = Site::with_links(to_play.regions, to_play.links);
    let variables = (to_play.prepare)(&mut site);
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let config = (to_play.config)(site.config(to_play.check, &to_play.times));
    site.start(&config, &variables);
    for (label, service) in RIVALS.iter().filter(|_| rivals) {
        site.start_rival(label, service);
    }
    play(name, &to_play.times, &mut site, &(to_play.steps)(&to_play.times))
}

// --- Servers --------------------------------------------------------------------------------------------------------------

fn with_nginx(site: &mut Site) -> Vec<(&'static str, String)> {
    (0..site.regions.len()).for_each(|region| site.serve(region, false));
    vec![]
}

fn with_strange(site: &mut Site) -> Vec<(&'static str, String)> {
    (0..site.regions.len()).for_each(|region| site.serve_strangely(region));
    vec![]
}

fn with_certificates(site: &mut Site) -> Vec<(&'static str, String)> {
    certificates::make(&site.folder);
    certificates::show(&site.folder, "good");
    (0..site.regions.len()).for_each(|region| site.serve(region, true));
    vec![("SSL_CERT_FILE", site.folder.path().join("ca.pem").to_string_lossy().into_owned())]
}

/// Region `a` starts anew with another certificate.
fn show(site: &mut Site, kind: &str) {
    certificates::show(&site.folder, kind);
    site.regions[0].nginx = None;
    site.serve(0, true);
}

// --- One region fails and comes back ---------------------------------------------------------------------------------------

/// To `b` and back to `a`.
fn there_and_back(times: &Times, within: Duration, strike: fn(&mut Site), heal: fn(&mut Site)) -> Vec<Step> {
    vec![
        Step { what: "fault", act: strike, expect: Expect::Moves { to: 1, within } },
        Step { what: "healed", act: heal, expect: Expect::Moves { to: 0, within: times.back_max } },
    ]
}

const REFUSED: Play = Play {
    steps: |times| {
        there_and_back(times, times.refused_max, |site| site.regions[0].nginx = None, |site| site.serve(0, false))
    },
    ..NOTHING
};
const BLACK_HOLE: Play = Play {
    steps: |times| {
        let strike = |site: &mut Site| site.regions[0].namespace.filter("drop", "drop");
        there_and_back(times, times.silent_max, strike, |site| site.regions[0].namespace.pass_all())
    },
    ..NOTHING
};
const RESET: Play =
    Play { steps: |times| behaves(times, times.refused_max, |site| site.behave(0, Behaviour::Reset)), ..STRANGE };
const HALF_OPEN: Play =
    Play { steps: |times| behaves(times, times.silent_max, |site| site.behave(0, Behaviour::Mute)), ..STRANGE };
const STATUS: Play =
    Play { steps: |times| behaves(times, times.refused_max, |site| site.behave(0, Behaviour::Status(500))), ..STRANGE };
const BODY: Play = Play {
    check: HTTP_BODY,
    steps: |times| behaves(times, times.refused_max, |site| site.behave(0, Behaviour::OtherBody)),
    ..STRANGE
};
const JUST_UNDER: Play = Play { steps: |_| late(1_200, None), ..STRANGE };
const JUST_OVER: Play = Play { steps: |times| late(1_700, Some(times)), ..STRANGE };

fn behaves(times: &Times, within: Duration, strike: fn(&mut Site)) -> Vec<Step> {
    there_and_back(times, within, strike, |site| site.behave(0, Behaviour::Well))
}

/// Answers take so long: over the timeout of `Some` times, or under it.
fn late(ms: u64, over: Option<&Times>) -> Vec<Step> {
    let strike: fn(&mut Site) = match ms {
        1_200 => |site| site.behave(0, Behaviour::Late(Duration::from_millis(1_200))),
        1_700 => |site| site.behave(0, Behaviour::Late(Duration::from_millis(1_700))),
        3_700 => |site| site.behave(0, Behaviour::Late(Duration::from_millis(3_700))),
        _ => |site| site.behave(0, Behaviour::Late(Duration::from_millis(4_300))),
    };
    match over {
        Some(times) => behaves(times, times.silent_max, strike),
        None => vec![Step { what: "slow", act: strike, expect: Expect::Stays(Duration::from_secs(12)) }],
    }
}

fn shown(times: &Times, strike: fn(&mut Site)) -> Vec<Step> {
    there_and_back(times, times.refused_max, strike, |site| show(site, "good"))
}

// --- Loss, delay, reordering -----------------------------------------------------------------------------------------------

const LINK: Way =
    Way { delay: Duration::from_millis(10), jitter: Duration::from_millis(5), loss_percent: 0, bytes_per_second: 0 };
const LOSSY: Way = Way { loss_percent: 30, ..LINK };
const RELAYED: Play = Play { times: DEFAULTS, links: |_| Some((LINK, LINK)), ..NOTHING };
/// Packets overtake each other all the time; a probe needs two round trips of up to 460 ms.
const FAR: Way = Way { delay: Duration::from_millis(150), jitter: Duration::from_millis(80), ..LINK };
const REORDERED: Play = Play {
    times: BROAD,
    links: |_| Some((LINK, LINK)),
    steps: |_| {
        let act = |site: &mut Site| site.regions[0].relay.as_ref().expect("it is relayed").set(FAR, FAR);
        vec![Step { what: "far away", act, expect: Expect::Stays(Duration::from_secs(15)) }]
    },
    ..NOTHING
};

fn lossy_in(time: Duration) -> Vec<Step> {
    let act = |site: &mut Site| site.regions[0].namespace.filter("numgen random mod 100 < 30 drop", "accept");
    vec![Step { what: "30 % loss", act, expect: Expect::Stays(time) }]
}

fn lossy_both(time: Duration) -> Vec<Step> {
    let lose = |site: &mut Site| {
        let some = "numgen random mod 100 < 30 drop";
        site.regions[0].namespace.filter(some, some);
    };
    vec![Step { what: "30 % loss", act: lose, expect: Expect::Anything(time) }]
}

fn lossy_forth(time: Duration) -> Vec<Step> {
    let act = |site: &mut Site| site.regions[0].relay.as_ref().expect("it is relayed").set(LOSSY, LINK);
    vec![Step { what: "30 % loss", act, expect: Expect::Stays(time) }]
}

fn lossy_back(time: Duration) -> Vec<Step> {
    let act = |site: &mut Site| site.regions[0].relay.as_ref().expect("it is relayed").set(LINK, LOSSY);
    vec![Step { what: "30 % loss", act, expect: Expect::Stays(time) }]
}

// --- Several regions -------------------------------------------------------------------------------------------------------

fn cut(site: &mut Site, region: usize) {
    site.regions[region].namespace.ip("link set home down");
}

fn mend(site: &mut Site, region: usize) {
    site.regions[region].namespace.ip("link set home up");
}

fn partition_of_one(times: &Times) -> Vec<Step> {
    there_and_back(times, times.silent_max, |site| cut(site, 0), |site| mend(site, 0))
}

const PARTITION: Play = Play {
    regions: 3,
    steps: |times| {
        let gone = |to| Expect::Moves { to, within: times.silent_max };
        let back = |to| Expect::Moves { to, within: times.back_max };
        vec![
            Step { what: "a cut off", act: |site| cut(site, 0), expect: gone(1) },
            Step { what: "b cut off", act: |site| cut(site, 1), expect: gone(2) },
            Step { what: "b back", act: |site| mend(site, 1), expect: back(1) },
            Step { what: "a back", act: |site| mend(site, 0), expect: back(0) },
        ]
    },
    ..NOTHING
};

/// Answers fail open: to the first region, as if all were up.
const ALL_DOWN: Play = Play {
    regions: 3,
    steps: |times| {
        let end = |site: &mut Site| site.regions.iter_mut().for_each(|region| region.nginx = None);
        let begin = |site: &mut Site| (0..3).for_each(|region| site.serve(region, false));
        vec![
            Step { what: "all down", act: end, expect: Expect::Settles { on: 0, within: times.refused_max } },
            Step { what: "all back", act: begin, expect: Expect::Settles { on: 0, within: times.back_max } },
        ]
    },
    ..NOTHING
};

/// isochrone's own links to all regions fail at once; nothing is wrong with any region.
fn cut_off(site: &mut Site) {
    site.home.filter("iifname \"r250\" accept; drop", "oifname \"r250\" accept; drop");
}

const CUT_OFF: Play = Play {
    regions: 3,
    steps: |times| {
        let (cut, healed) = (times.silent_max, times.back_max);
        vec![
            Step { what: "cut off", act: cut_off, expect: Expect::Settles { on: 0, within: cut } },
            Step {
                what: "healed",
                act: |site| site.home.pass_all(),
                expect: Expect::Settles { on: 0, within: healed },
            },
        ]
    },
    ..NOTHING
};

/// The same while the first region really is down: the last verdicts stay, so that nobody is sent there.
const CUT_OFF_BESIDE: Play = Play {
    regions: 3,
    steps: |times| {
        let (out, back) = (times.refused_max, times.back_max);
        let cut = Expect::Settles { on: 1, within: times.silent_max };
        vec![
            Step {
                what: "a down",
                act: |site| site.regions[0].nginx = None,
                expect: Expect::Moves { to: 1, within: out },
            },
            // Long enough for all others to be heard meanwhile: until then nobody can tell it from one trouble.
            Step { what: "a stays down", act: |_| {}, expect: Expect::Stays(out) },
            Step { what: "cut off", act: cut_off, expect: cut },
            Step { what: "healed", act: |site| site.home.pass_all(), expect: Expect::Settles { on: 1, within: back } },
            Step { what: "a back", act: |site| site.serve(0, false), expect: Expect::Moves { to: 0, within: back } },
        ]
    },
    ..NOTHING
};

// --- Endpoints that move, and many of them ---------------------------------------------------------------------------------

/// What names resolve to in isochrone's namespace: region `a`'s to this address.
fn name_regions(site: &mut Site, first: &str) {
    site.home.write_etc("hosts", &format!("127.0.0.1 localhost\n{first} a.test\n10.0.2.2 b.test\n"));
}

/// The service moves to another address of its region, and its name with it; then it fails there.
const ADDRESS_CHANGE: Play = Play {
    prepare: |site| {
        name_regions(site, "10.0.1.2");
        site.regions[0].namespace.ip("addr add 10.0.1.3/24 dev home");
        for (region, name) in site.regions.iter_mut().zip([b"\x01a\x04test\x00", b"\x01b\x04test\x00"]) {
            region.aliases.push(name.to_vec());
        }
        with_nginx(site)
    },
    config: |text| text.replace("\"10.0.1.2\"", "\"a.test\"").replace("\"10.0.2.2\"", "\"b.test\""),
    steps: |times| {
        let old_gone =
            |site: &mut Site| site.regions[0].namespace.filter("ip daddr 10.0.1.2 reject with tcp reset", "accept");
        let new_gone =
            |site: &mut Site| site.regions[0].namespace.filter("ip daddr 10.0.1.3 reject with tcp reset", "accept");
        vec![
            Step {
                what: "name moved",
                act: |site| name_regions(site, "10.0.1.3"),
                expect: Expect::Stays(times.back_max),
            },
            Step { what: "old address gone", act: old_gone, expect: Expect::Stays(times.refused_max) },
            Step {
                what: "new address gone",
                act: new_gone,
                expect: Expect::Moves { to: 1, within: times.refused_max },
            },
            Step {
                what: "healed",
                act: |site| site.regions[0].namespace.pass_all(),
                expect: Expect::Moves { to: 0, within: times.back_max },
            },
        ]
    },
    ..NOTHING
};

/// Addresses of one region, all on one server there.
fn thousand() -> impl Iterator<Item = [u8; 4]> {
    (0..1000u16).map(|n| [10, 64, (n / 250) as u8, (n % 250) as u8 + 1])
}

const THOUSAND: Play = Play {
    times: MANY,
    prepare: |site| {
        site.regions[0].namespace.ip("route add local 10.64.0.0/16 dev lo");
        site.home.ip("route add 10.64.0.0/16 via 10.0.1.2");
        site.regions[0].aliases.extend(thousand().map(|address| address.to_vec()));
        with_strange(site)
    },
    config: |text| {
        let all: Vec<String> = thousand().map(|[a, b, c, d]| format!("\"{a}.{b}.{c}.{d}\"")).collect();
        text.replace("\"10.0.1.2\"", &all.join(", "))
    },
    ..NOTHING
};
const THOUSAND_REFUSE: Play = Play {
    steps: |times| {
        there_and_back(times, times.refused_max, |site| site.regions[0].strange = None, |site| site.serve_strangely(0))
    },
    ..THOUSAND
};
const THOUSAND_SILENT: Play = Play { steps: |times| (BLACK_HOLE.steps)(times), ..THOUSAND };
