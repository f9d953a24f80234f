//! Holds the house in order: imports run downward only and never in a loop, the pure rooms have no clock, socket, thread, task or
//! file, `unsafe` stays in its one room, modules stay short. Works on the text of `src/`; what it says names both rooms, the file
//! and the line.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

#[path = "support/rust_paths.rs"]
mod rust_paths;

use rust_paths::{SourceFile, read};

/// The floors of `src/lib.rs`, from the top.
const FLOORS: [&[&str]; 7] = [
    &["main", "cli", "server"],
    &["transport", "admin", "cluster"],
    &["answer"],
    &["routing"],
    &["zone"],
    &["latency", "config"],
    &["geo", "wire", "health", "telemetry", "sys"],
];

/// Rooms, or files of a room, that take time and bytes as arguments.
const PURE: [&str; 12] = [
    "answer/",
    "wire/",
    "routing/",
    "zone/",
    "latency/",
    "health/verdict.rs",
    "health/consensus.rs",
    "health/identity.rs",
    "health/damping.rs",
    "health/self_doubt.rs",
    "health/history.rs",
    "health/rise.rs",
];

/// What a pure room must not reach for, by the beginning of the path.
const IMPURE_PATHS: [&str; 18] = [
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::os",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::net::*",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "tokio",
    "socket2",
    "libc",
    "reqwest",
    "tracing",
];

/// What reads a clock, by the end of the path.
const CLOCKS: [&str; 2] = ["Instant::now", "SystemTime::now"];

/// Of these, only this may be used, only there: a zone file may include others.
const ALLOWED: [(&str, &str); 1] = [("zone/file/", "std::fs")];

/// Lines of a module that are worth a look, and lines that are too many.
const LINES_LONG: usize = 500;
const LINES_MAX: usize = 700;

/// One source file: its path below `src/`, with slashes, and what was read in it.
struct Module {
    path: String,
    source: SourceFile,
    /// All of it is a test.
    is_test: bool,
}

impl Module {
    fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

fn modules(files: &[(String, String)]) -> Vec<Module> {
    let mut modules: Vec<Module> = files
        .iter()
        .map(|(path, text)| {
            let own_crate = (path == "main.rs").then_some("isochrone");
            Module { path: path.clone(), source: read(&module_path(path), own_crate, text), is_test: false }
        })
        .collect();
    let test_stems: Vec<String> = modules
        .iter()
        .flat_map(|module| module.source.test_files.iter().map(|name| child_stem(&module.path, name)))
        .collect();
    for module in &mut modules {
        module.is_test = test_stems
            .iter()
            .any(|stem| module.path == format!("{stem}.rs") || module.path.starts_with(&format!("{stem}/")));
    }
    modules
}

/// `wire/name.rs` → `["crate", "wire", "name"]`.
fn module_path(path: &str) -> Vec<&str> {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let names = stem.split('/').filter(|name| !matches!(*name, "mod" | "lib"));
    std::iter::once("crate").chain(names).collect()
}

/// Where the module `name` that `parent` declares has its file, without the ending.
fn child_stem(parent: &str, name: &str) -> String {
    let stem = parent.strip_suffix(".rs").unwrap_or(parent);
    let folder = stem.strip_suffix("mod").or(stem.strip_suffix("lib")).map_or(format!("{stem}/"), str::to_owned);
    format!("{folder}{name}")
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

/// Imports that run upward, or along the lowest floor, or around in a loop; rooms that have no floor.
fn import_faults(modules: &[Module]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut beside: BTreeMap<(&str, &str), String> = BTreeMap::new();
    for module in modules.iter().filter(|module| module.path != "lib.rs") {
        let Some(from) = floor_of(module.room()) else {
            faults.push(format!("src/{}: the room `{}` stands on no floor", module.path, module.room()));
            continue;
        };
        for path in module.source.paths.iter().filter(|path| path.segments[0] == "crate") {
            let place = format!("src/{}:{}", module.path, path.line);
            let Some(to) = path.segments.get(1).map(String::as_str) else {
                faults.push(format!("{place}: `{}` takes the whole crate", module.room()));
                continue;
            };
            let pair = format!("`{}` must not import `{to}`", module.room());
            match floor_of(to) {
                _ if to == module.room() => {}
                None => faults.push(format!("{place}: `{to}` is no room that stands on a floor")),
                Some(floor) if floor < from => faults.push(format!("{place}: {pair}: that runs upward")),
                Some(floor) if floor > from => {}
                Some(floor) if floor == FLOORS.len() - 1 => {
                    faults.push(format!("{place}: {pair}: a room on the lowest floor leans on none"));
                }
                Some(_) => {
                    let to = FLOORS[from].iter().find(|room| **room == to).expect("it has a floor");
                    beside.entry((module.room(), to)).or_insert(place);
                }
            }
        }
        let bare = module.source.words.iter().filter(|word| word.text == "crate" && word.before != Some('('));
        faults.extend(bare.map(|word| format!("src/{}:{}: `crate` under another name", module.path, word.line)));
    }
    faults.extend(loops(&beside));
    faults
}

/// Imports between rooms of one floor that lead back to where they began.
fn loops(beside: &BTreeMap<(&str, &str), String>) -> Vec<String> {
    let reaches = |start: &str, goal: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(room) = open.pop() {
            if room == goal {
                return true;
            }
            if seen.insert(room) {
                open.extend(beside.keys().filter(|(from, _)| *from == room).map(|(_, to)| *to));
            }
        }
        false
    };
    let in_loop = beside.iter().filter(|((from, to), _)| reaches(to, from));
    in_loop.map(|((from, to), place)| format!("{place}: `{from}` must not import `{to}`: that closes a loop")).collect()
}

/// Clocks, sockets, threads, tasks and files in the pure rooms, tests aside.
fn purity_faults(modules: &[Module]) -> Vec<String> {
    let mut faults = Vec::new();
    let pure = modules.iter().filter(|module| !module.is_test && PURE.iter().any(|room| module.path.starts_with(room)));
    for module in pure {
        let allowed =
            |path: &str| ALLOWED.iter().any(|(place, what)| module.path.starts_with(place) && begins_with(path, what));
        for found in module.source.paths.iter().filter(|path| !path.in_test) {
            let path = found.segments.join("::");
            let impure = IMPURE_PATHS.iter().any(|begin| begins_with(&path, begin)) && !allowed(&path);
            let clock = CLOCKS.iter().any(|end| path == *end || path.ends_with(&format!("::{end}")));
            if impure || clock {
                faults.push(format!(
                    "src/{}:{}: `{}` is pure and has no `{path}`",
                    module.path,
                    found.line,
                    module.room()
                ));
            }
        }
        let elapsed = module.source.words.iter().filter(|word| !word.in_test && word.text == "elapsed");
        for word in elapsed.filter(|word| word.before == Some('.')) {
            faults.push(format!(
                "src/{}:{}: `{}` is pure and has no `.elapsed`",
                module.path,
                word.line,
                module.room()
            ));
        }
    }
    faults
}

/// True for `std::fs` and `std::fs::read`, not for `std::fsx`.
fn begins_with(path: &str, begin: &str) -> bool {
    path.strip_prefix(begin).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `unsafe` outside the room that may have it.
fn unsafe_faults(modules: &[Module]) -> Vec<String> {
    let others = modules.iter().filter(|module| module.room() != "sys");
    let words = others.flat_map(|module| module.source.words.iter().map(move |word| (module, word)));
    let unsafes = words.filter(|(_, word)| word.text == "unsafe");
    unsafes
        .map(|(module, word)| {
            format!("src/{}:{}: `{}` has `unsafe`, which belongs into `sys`", module.path, word.line, module.room())
        })
        .collect()
}

/// Modules that are too long, and those worth a look.
fn length_faults(modules: &[Module]) -> (Vec<String>, Vec<String>) {
    let longer_than = |lines: usize| move |module: &&Module| module.source.lines > lines;
    let says = |module: &Module| format!("src/{}: {} lines", module.path, module.source.lines);
    let too_long = modules.iter().filter(longer_than(LINES_MAX)).map(says).collect();
    let long = modules.iter().filter(longer_than(LINES_LONG)).map(says).collect();
    (too_long, long)
}

/// Every `.rs` file below `src/`.
fn source_files() -> Vec<(String, String)> {
    fn gather(folder: &Path, root: &Path, files: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                gather(&path, root, files);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(root).expect("it is below the root").to_string_lossy().replace('\\', "/");
                files.push((name, fs::read_to_string(&path).expect("readable source")));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    gather(&root, &root, &mut files);
    files.sort();
    assert!(files.len() > 50, "only {} files below {}", files.len(), root.display());
    files
}

fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn imports_run_downward_and_never_in_a_loop() {
    none(&import_faults(&modules(&source_files())));
}

#[test]
fn the_pure_rooms_have_no_clock_socket_thread_task_or_file() {
    none(&purity_faults(&modules(&source_files())));
}

#[test]
fn unsafe_code_lives_in_one_room() {
    none(&unsafe_faults(&modules(&source_files())));
}

#[test]
fn modules_stay_short_enough_to_read() {
    let (too_long, long) = length_faults(&modules(&source_files()));
    for module in &long {
        println!("long: {module}");
    }
    none(&too_long);
}

#[test]
fn every_room_of_the_crate_stands_on_a_floor_of_its_diagram() {
    let files = source_files();
    let (_, lib) = files.iter().find(|(path, _)| path == "lib.rs").expect("src/lib.rs");
    let declared: BTreeSet<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let known: BTreeSet<&str> = FLOORS.concat().into_iter().filter(|room| *room != "main").collect();
    assert_eq!(declared, known);
    for floor in FLOORS {
        let drawn = format!("//! {}\n", floor.join(" · "));
        assert!(lib.contains(&drawn), "the diagram in src/lib.rs does not show {drawn:?}");
    }
}

/// The checks themselves, on made-up houses.
mod the_checks {
    use super::*;

    fn house(files: &[(&str, &str)]) -> Vec<Module> {
        let files: Vec<(String, String)> = files.iter().map(|(p, t)| ((*p).into(), (*t).into())).collect();
        modules(&files)
    }

    fn imports(path: &str, text: &str) -> Vec<String> {
        import_faults(&house(&[(path, text)]))
    }

    #[test]
    fn see_an_import_that_runs_upward() {
        let cases = [
            ("wire/name.rs", "use crate::zone::Zone;"),
            ("wire/name.rs", "\n\nuse crate::{wire::Rcode, zone};"),
            ("zone/mod.rs", "fn f() -> crate::answer::Core { panic!() }"),
            ("zone/mod.rs", "use super::routing::Plan;"),
            ("zone/file/mod.rs", "use super::super::routing::Plan;"),
            ("zone/file/mod.rs", "use super::{super::routing::Plan, tree};"),
            ("zone/file/mod.rs", "mod tests { mod deep { use super::super::super::super::answer::Core; } }"),
            ("zone/mod.rs", "#[cfg(test)] mod tests { use crate::server; }"),
            ("sys/mod.rs", "macro_rules! m { () => { $crate::wire::Name } }"),
            ("transport/udp.rs", "use {std::net::IpAddr, crate::server::Server};"),
            ("config/model.rs", "pub(in crate::zone) fn f() {}"),
        ];
        for (path, text) in cases {
            let faults = imports(path, text);
            assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        }
        let faults = imports("wire/name.rs", "//! Names.\n\nuse crate::zone::Zone;\n");
        assert_eq!(faults, ["src/wire/name.rs:3: `wire` must not import `zone`: that runs upward"]);
    }

    #[test]
    fn pass_an_import_that_runs_downward_or_stays_inside() {
        for (path, text) in [
            ("zone/mod.rs", "use crate::{config::{model::Zone, report::*}, wire::Name, zone::tree};"),
            ("zone/file/mod.rs", "use super::{lexer::Lexer, super::wire}; use self::include; pub(crate) fn f() {}"),
            ("main.rs", "fn main() { isochrone::cli::run() }"),
            ("config/mod.rs", "use crate::geo::{Coordinates, gazetteer as g}; use std::sync::Arc;"),
            (
                "wire/mod.rs",
                "// use crate::zone;\n/* use crate::zone; /* */ crate::zone::X */ const A: &str = \"crate::zone::X\";",
            ),
            (
                "wire/mod.rs",
                "const A: &str = r#\"\"crate::zone::X\"#; const B: char = '\"'; const C: &[u8] = b\"\\\"crate::zone::X\";",
            ),
            ("wire/mod.rs", "fn f<'a>(x: &'a str) -> char { '\\'' } const D: &str = \"crate::zone::X\";"),
        ] {
            none(&imports(path, text));
        }
    }

    #[test]
    fn see_a_room_of_the_lowest_floor_that_leans_on_another() {
        let faults = imports("health/check.rs", "use crate::wire::Name;");
        assert_eq!(
            faults,
            ["src/health/check.rs:1: `health` must not import `wire`: a room on the lowest floor leans on none"]
        );
    }

    #[test]
    fn see_a_loop_on_a_floor_and_nothing_less() {
        none(&import_faults(&house(&[("cli/mod.rs", "use crate::server;"), ("main.rs", "use isochrone::cli;")])));
        let faults = import_faults(&house(&[
            ("cli/mod.rs", "use crate::server;"),
            ("server.rs", "use crate::main::x;"),
            ("main.rs", "use isochrone::cli::run;"),
        ]));
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(
            faults[0].contains("src/cli/mod.rs:1: `cli` must not import `server`: that closes a loop"),
            "{faults:?}"
        );
    }

    #[test]
    fn see_what_hides_the_room_behind_another_name() {
        for text in ["use crate as house;", "use crate::{self as house};", "use crate::*;", "use crate::Name;"] {
            assert_eq!(imports("wire/mod.rs", text).len(), 1, "{text}");
        }
        assert_eq!(imports("cellar/mod.rs", "").len(), 1);
    }

    #[test]
    fn see_clocks_sockets_threads_tasks_and_files_in_pure_rooms() {
        for text in [
            "fn f() { std::time::Instant::now(); }",
            "use std::time::{Instant, Duration}; fn f() { Instant::now(); }",
            "fn f() { std::time::SystemTime::now(); }",
            "fn f(t: Instant) { t.elapsed(); }",
            "use std::{fs, io};",
            "use std::fs::File;",
            "use std::net::{IpAddr, UdpSocket};",
            "use std::net::*;",
            "fn f() { std::thread::spawn(|| ()); }",
            "use tokio::{sync::mpsc};",
            "#[cfg(not(test))] fn f() { tracing::info!(\"x\"); }",
            "#[cfg(test)] fn f() -> [u8; 2] { [0; 2] } fn g() { std::env::var(\"X\"); }",
        ] {
            let faults = purity_faults(&house(&[("answer/mod.rs", text)]));
            assert_eq!(faults.len(), 1, "{text}: {faults:?}");
            assert_eq!(purity_faults(&house(&[("health/verdict.rs", text)])).len(), 1, "{text}");
            none(&purity_faults(&house(&[("transport/mod.rs", text), ("health/schedule.rs", text)])));
        }
        let faults = purity_faults(&house(&[("zone/tree.rs", "\nuse std::fs;")]));
        assert_eq!(faults, ["src/zone/tree.rs:2: `zone` is pure and has no `std::fs`"]);
    }

    #[test]
    fn pass_tests_and_the_one_exception_in_pure_rooms() {
        none(&purity_faults(&house(&[
            ("zone/file/include.rs", "use std::{fs, io};"),
            (
                "zone/mod.rs",
                "#[cfg(test)] mod tests;\n#[cfg(test)] mod more { use std::fs; }\n#[cfg(test)] use std::env;",
            ),
            ("zone/tests.rs", "use std::fs;"),
            ("zone/tests/deep.rs", "use std::thread;"),
            ("wire/mod.rs", "use std::net::{IpAddr, Ipv4Addr}; use std::time::{Duration, Instant};"),
        ])));
    }

    #[test]
    fn see_unsafe_outside_its_room() {
        let text = "fn f() { unsafe { g() } }";
        none(&unsafe_faults(&house(&[("sys/batch.rs", text), ("wire/mod.rs", "// unsafe\n#![deny(unsafe_code)]")])));
        let faults = unsafe_faults(&house(&[("wire/mod.rs", text)]));
        assert_eq!(faults, ["src/wire/mod.rs:1: `wire` has `unsafe`, which belongs into `sys`"]);
    }

    #[test]
    fn see_modules_that_grow_too_long() {
        let modules = house(&[("wire/a.rs", &"\n".repeat(700)), ("wire/b.rs", &"\n".repeat(701))]);
        let (too_long, long) = length_faults(&modules);
        assert_eq!(too_long, ["src/wire/b.rs: 701 lines"]);
        assert_eq!(long.len(), 2);
    }
}
