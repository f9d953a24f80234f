use super::*;
use crate::health::verdict::{self, State, Verdict};

const RULES: Rules = Rules { changes_max: 2, window: s(10), hold: s(3), hold_max: s(20) };
/// Times count from a moment long past.
const BEGUN: Duration = s(1_000_000);

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Every sequence of up to eight pauses between changes: within a hold-down, within the window, at its edge, far beyond.
fn each_sequence(mut visit: impl FnMut(&[Duration])) {
    const PAUSES: [u64; 5] = [1, 3, 9, 10, 40];
    for code in 0..PAUSES.len().pow(7) {
        let pauses: Vec<Duration> = (0..7).map(|i| s(PAUSES[code / PAUSES.len().pow(i) % PAUSES.len()])).collect();
        visit(&pauses);
    }
}

/// The hold-downs of a target that changes after each of `pauses`, as the sentences have them, told from the whole list of
/// changes: for each change, whether the target is held right after it, and until when.
fn by_the_sentences(times: &[Duration], rules: &Rules) -> Vec<Option<Hold>> {
    let mut told: Vec<Option<Hold>> = Vec::new();
    let (mut hold, mut doublings, mut calm_since): (Option<Hold>, u32, Duration) = (None, 0, times[0]);
    for (at, &now) in times.iter().enumerate() {
        let recent = times[..=at].iter().filter(|t| now - **t < rules.window).count();
        let is_held = hold.filter(|hold| now < hold.until);
        let calm = now.saturating_sub(calm_since);
        let lost = (calm.as_secs() / rules.window.as_secs()) as u32;
        doublings = doublings.saturating_sub(lost);
        hold = match (is_held, recent > rules.changes_max as usize) {
            (None, false) => None,
            (None, true) => {
                doublings += 1;
                let lasts = (rules.hold * 2u32.pow(doublings - 1)).min(rules.hold_max);
                Some(Hold { since: now, until: now + lasts })
            }
            (Some(on), false) => Some(on),
            (Some(on), true) => {
                let lasts = (rules.hold * 2u32.pow(doublings - 1)).min(rules.hold_max);
                Some(Hold { since: on.since, until: now + lasts })
            }
        };
        calm_since = hold.map_or(now, |hold| hold.until);
        told.push(hold);
    }
    told
}

fn times(pauses: &[Duration]) -> Vec<Duration> {
    let mut now = BEGUN;
    std::iter::once(BEGUN)
        .chain(pauses.iter().map(|pause| {
            now += *pause;
            now
        }))
        .collect()
}

fn walk(times: &[Duration], rules: &Rules) -> Vec<Option<Hold>> {
    let mut damping = Damping::default();
    times
        .iter()
        .map(|now| {
            damping.change(*now, rules);
            damping.hold()
        })
        .collect()
}

#[test]
fn every_sequence_agrees_with_the_sentences() {
    each_sequence(|pauses| {
        let times = times(pauses);
        assert_eq!(walk(&times, &RULES), by_the_sentences(&times, &RULES), "{pauses:?}");
    });
}

#[test]
fn nothing_is_held_before_it_changed_more_often_than_allowed_within_the_window() {
    each_sequence(|pauses| {
        let times = times(pauses);
        let held = walk(&times, &RULES);
        for (at, _) in
            held.iter().enumerate().filter(|(at, hold)| hold.is_some() && (*at == 0 || held[at - 1].is_none()))
        {
            assert!(at >= 2 && times[at] - times[at - 2] < RULES.window, "{pauses:?}");
        }
    });
}

#[test]
fn a_hold_down_always_ends_and_lasts_from_the_last_change_no_longer_than_the_most() {
    each_sequence(|pauses| {
        let times = times(pauses);
        for (now, hold) in times.iter().zip(walk(&times, &RULES)) {
            if let Some(hold) = hold {
                assert!(hold.until <= *now + RULES.hold_max && hold.since <= *now, "{pauses:?}");
                assert!(hold.until - hold.since >= RULES.hold, "{pauses:?}");
            }
        }
    });
}

#[test]
fn a_target_that_goes_on_flapping_is_never_released() {
    let mut damping = Damping::default();
    let mut now = BEGUN;
    for n in 0..1_000 {
        now += s(2);
        damping.change(now, &RULES);
        assert_eq!(damping.hold().is_some(), n >= 2, "{n}");
        assert!(!damping.release(now + s(2)));
    }
    assert_eq!(damping.level(now, &RULES), 1, "however long it goes on, it is one hold-down");
    assert!(damping.release(now + s(3)));
}

#[test]
fn each_hold_down_lasts_twice_as_long_as_the_one_before_up_to_the_most() {
    let mut damping = Damping::default();
    let mut now = BEGUN;
    let mut lasted = Vec::new();
    for _ in 0..6 {
        while !damping.change(now, &RULES) {
            now += s(1);
        }
        let hold = damping.hold().unwrap();
        lasted.push((hold.until - hold.since).as_secs());
        now = hold.until;
        assert!(damping.release(now));
    }
    assert_eq!(lasted, [3, 6, 12, 20, 20, 20]);
}

#[test]
fn calm_takes_the_doublings_back_one_a_window_and_a_hold_down_is_no_calm() {
    let mut damping = Damping::default();
    let mut now = BEGUN;
    for _ in 0..3 {
        while !damping.change(now, &RULES) {}
        now = damping.hold().unwrap().until;
        damping.release(now);
    }
    assert_eq!(damping.level(now, &RULES), 3, "not in the 12 seconds that the last one lasted");
    for (calm, level) in [(9, 3), (10, 2), (19, 2), (20, 1), (30, 0), (1_000, 0)] {
        assert_eq!(damping.level(now + s(calm), &RULES), level, "{calm} s");
    }
}

#[test]
fn zero_turns_it_off() {
    each_sequence(|pauses| {
        let rules = Rules { changes_max: 0, ..RULES };
        assert!(walk(&times(pauses), &rules).iter().all(Option::is_none));
    });
    assert!(walk(&[BEGUN; 100], &Rules::OFF).iter().all(Option::is_none));
}

#[test]
fn a_change_that_is_taken_back_leaves_nothing_behind() {
    each_sequence(|pauses| {
        let times = times(pauses);
        let mut damping = Damping::default();
        for now in &times {
            let before = damping.clone();
            let began = damping.change(*now, &RULES);
            let mut undone = damping.clone();
            undone.take_back();
            if began {
                assert_eq!(undone.hold(), None, "{pauses:?}");
                assert!(undone.level(*now, &RULES) <= before.level(*now, &RULES), "{pauses:?}");
            }
            assert_eq!(undone.count(*now, &RULES), before.count(*now, &RULES).min(RULES.changes_max), "{pauses:?}");
        }
    });
}

#[test]
fn a_restart_forgets_nothing_that_still_counts() {
    let gap = s(2);
    each_sequence(|pauses| {
        let times = times(pauses);
        let mut damping = Damping::default();
        times.iter().for_each(|now| _ = damping.change(*now, &RULES));
        let now = *times.last().unwrap();
        let file = serde_json::to_string(&damping.remember(now)).unwrap();
        let remembered: Option<Remembered> = serde_json::from_str(&file).unwrap();
        // A new process has another beginning of time.
        let shift = s(500_000);
        let mut recalled = Damping::recalled(&remembered.unwrap(), gap, now + gap - shift, &RULES);
        damping.release(now + gap);
        let moved = |hold: Option<Hold>| hold.map(|hold| (hold.since - shift, hold.until - shift));
        assert_eq!(recalled.hold().map(|hold| (hold.since, hold.until)), moved(damping.hold()), "{pauses:?}");
        for later in [1, 4, 30] {
            let at = now + gap + s(later);
            damping.change(at, &RULES);
            recalled.change(at - shift, &RULES);
            assert_eq!(recalled.hold().map(|hold| (hold.since, hold.until)), moved(damping.hold()), "{pauses:?}");
        }
    });
}

#[test]
fn what_a_file_says_is_kept_within_bounds() {
    let wild = Remembered {
        further: u32::MAX,
        changes_ms: (0..100_000).rev().collect(),
        level: u32::MAX,
        hold_ms: Some((u64::MAX, u64::MAX / 2)),
        calm_ms: u64::MAX,
    };
    let damping = Damping::recalled(&wild, s(1), BEGUN, &RULES);
    assert_eq!(damping.changes.len(), CHANGES_KEPT);
    assert!(damping.level <= LEVEL_MAX);
    assert!(damping.hold().unwrap().until <= BEGUN + RULES.hold_max);
    assert_eq!(Damping::recalled(&wild, s(1), BEGUN, &Rules::OFF), Damping::default());
    let nothing = Damping::recalled(&Remembered::default(), s(1), BEGUN, &RULES);
    assert_eq!((nothing.hold(), nothing.level(BEGUN, &RULES), nothing.count(BEGUN, &RULES)), (None, 0, 0));
}

/// Verdict and damping together: every sequence of 12 results, a second apart, under several counts.
fn each_life(mut visit: impl FnMut(&[bool], &Rules, &[(State, Option<Hold>)])) {
    for (fall, rise) in [(1, 1), (1, 2), (2, 1), (3, 2)] {
        for changes_max in 1..=4 {
            let rules = Rules { changes_max, window: s(8), hold: s(2), hold_max: s(5) };
            for bits in 0u32..1 << 12 {
                let results: Vec<bool> = (0..12).map(|i| bits >> i & 1 == 1).collect();
                let (mut verdict, mut damping) = (Verdict::default().after(true, COUNTS), Damping::default());
                let mut lived = Vec::new();
                for (at, ok) in results.iter().enumerate() {
                    let now = BEGUN + s(at as u64);
                    let before = verdict.state();
                    damping.release(now);
                    verdict = verdict.after(*ok, verdict::Rules { fall, rise });
                    if verdict.state() != before {
                        damping.change(now, &rules);
                    }
                    lived.push((verdict.state(), damping.hold()));
                }
                visit(&results, &rules, &lived);
            }
        }
    }
}

const COUNTS: verdict::Rules = verdict::Rules { fall: 1, rise: 1 };

/// The moments, counted in results, at which the verdict changed.
fn changes(lived: &[(State, Option<Hold>)]) -> Vec<usize> {
    let before = |at: usize| if at == 0 { State::Up } else { lived[at - 1].0 };
    (0..lived.len()).filter(|at| lived[*at].0 != before(*at)).collect()
}

#[test]
fn a_target_that_changes_no_more_often_than_allowed_is_never_held_whatever_its_results_are() {
    each_life(|results, rules, lived| {
        let is_quiet = changes(lived).len() <= rules.changes_max as usize;
        assert!(!is_quiet || lived.iter().all(|(_, hold)| hold.is_none()), "{results:?} {rules:?}");
    });
}

#[test]
fn one_outage_of_any_length_is_never_held() {
    each_life(|results, rules, lived| {
        let outages = results.windows(2).filter(|pair| pair[0] && !pair[1]).count() + usize::from(!results[0]);
        assert!(outages > 1 || rules.changes_max < 2 || lived.iter().all(|(_, hold)| hold.is_none()), "{results:?}");
    });
}

#[test]
fn a_target_that_is_held_changed_too_often_and_too_lately_and_one_that_is_not_held_is_as_its_verdict_says() {
    each_life(|results, rules, lived| {
        let changes = changes(lived);
        for (at, (_, hold)) in lived.iter().enumerate() {
            let Some(hold) = hold else { continue };
            let past: Vec<usize> = changes.iter().copied().filter(|change| *change <= at).collect();
            let last = *past.last().unwrap();
            assert!(at - last < rules.hold_max.as_secs() as usize, "{results:?} {rules:?}: held for too long");
            assert!(past.len() > rules.changes_max as usize, "{results:?} {rules:?}: held for too little");
            assert!(BEGUN + s(at as u64) < hold.until, "{results:?} {rules:?}: a hold-down that is over");
        }
    });
}

#[test]
fn every_change_beyond_what_is_allowed_leaves_the_target_held() {
    each_life(|results, rules, lived| {
        let changes = changes(lived);
        for (n, at) in changes.iter().enumerate() {
            let recent = changes[..=n].iter().filter(|change| at - **change < rules.window.as_secs() as usize).count();
            let is_held = lived[*at].1.is_some();
            assert!(recent <= rules.changes_max as usize || is_held, "{results:?} {rules:?} at {at}");
        }
    });
}
