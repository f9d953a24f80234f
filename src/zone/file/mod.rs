//! Zone-file text → records: the whole master-file format of RFC 1035 §5 with `$TTL` (RFC 2308 §4), unknown types
//! (RFC 3597 §5) and BIND's `$GENERATE`. Every problem is reported with its place, and reading goes on at the next record. Knows nothing of what a
//! zone must or must not hold; `content` does.

mod generate;
mod include;
#[cfg(test)]
mod tests;

use std::{ops::Range, sync::Arc};

use include::Includes;

use super::{
    lexer::{Lexer, Shape, Token},
    rdata::{self, Fault, Words, types},
};
use crate::{
    config::{
        model::{Zone, ZoneText},
        report::{Problem, Source, Spot},
    },
    wire::Name,
};

/// Largest TTL (RFC 2181 §8), in seconds.
pub const TTL_MAX_S: u32 = i32::MAX as u32;
/// Most records of one zone's texts.
pub const RECORDS_MAX: usize = 10_000_000;
/// Most problems that are kept of one zone; after them reading stops.
pub const PROBLEMS_MAX: usize = 1_000;

/// A record as a text gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Absolute owner name, not yet known to lie in the zone.
    pub owner: Name,
    /// Type number.
    pub rtype: u16,
    /// Seconds, 0 to [`TTL_MAX_S`].
    pub ttl_s: u32,
    /// Uncompressed wire form, names in lower case.
    pub rdata: Vec<u8>,
    /// From its first word to its last.
    pub spot: Spot,
}

/// Reads `text`, which belongs to `zone`. Problems are appended; the records are those that could be read.
pub fn read(zone: &Zone, text: &ZoneText, problems: &mut Vec<Problem>) -> Vec<Record> {
    let mut reader = Reader {
        zone_ttl_s: zone.ttl_s,
        records: Vec::new(),
        problems,
        includes: Includes::new(text.folder.as_deref()),
        stopped: false,
    };
    let scope = Scope { origin: zone.origin.clone(), ttl_s: None, last_ttl_s: None, last_owner: None };
    reader.read_source(&text.spot.source, text.spot.span.clone(), scope);
    reader.records
}

/// What a record may leave out. Each file has its own: what an included file says of origin, TTL and owner ends with it.
struct Scope {
    /// `$ORIGIN`.
    origin: Name,
    /// `$TTL`.
    ttl_s: Option<u32>,
    /// The last TTL that stood in a record.
    last_ttl_s: Option<u32>,
    last_owner: Option<Name>,
}

struct Reader<'a> {
    zone_ttl_s: u32,
    records: Vec<Record>,
    problems: &'a mut Vec<Problem>,
    includes: Includes<'a>,
    /// A limit was met and reported.
    stopped: bool,
}

/// An entry's tokens and the text they stand in.
#[derive(Clone, Copy)]
struct Entry<'t> {
    source: &'t Arc<Source>,
    tokens: &'t [Token],
    /// The line begins with a blank: the owner is the last one.
    blank_start: bool,
}

impl<'t> Entry<'t> {
    fn text(&self, index: usize) -> &'t str {
        self.tokens[index].text(&self.source.text)
    }

    /// The text of a word without quotes.
    fn word(&self, index: usize) -> Option<&'t str> {
        let token = self.tokens.get(index)?;
        (token.shape == Shape::Word).then(|| token.text(&self.source.text))
    }

    fn span(&self) -> Range<usize> {
        self.tokens[0].span().start..self.tokens[self.tokens.len() - 1].span().end
    }

    /// The fault of an entry that ends too early, at its last word.
    fn missing(&self, message: &str) -> Fault {
        Fault::new(self.tokens[self.tokens.len() - 1].span(), message)
    }
}

impl Reader<'_> {
    fn read_source(&mut self, source: &Arc<Source>, range: Range<usize>, mut scope: Scope) {
        let mut lexer = Lexer::new(&source.text, range);
        let mut tokens = Vec::new();
        while !self.stopped {
            match lexer.next_entry(&mut tokens) {
                Ok(None) => return,
                Ok(Some(blank_start)) => {
                    let entry = Entry { source, tokens: &tokens, blank_start };
                    if let Err(fault) = self.read_entry(entry, &mut scope) {
                        self.report(source, fault);
                    }
                }
                Err(error) => self.report(source, Fault::new(error.span(), error.to_string()).help(error.help())),
            }
        }
    }

    fn report(&mut self, source: &Arc<Source>, fault: Fault) {
        let spot = Spot { source: source.clone(), span: fault.span };
        self.problems.push(Problem { spot: Some(spot), message: fault.message, help: fault.help });
        if self.problems.len() >= PROBLEMS_MAX && !self.stopped {
            self.stopped = true;
            let message = format!("more than {PROBLEMS_MAX} problems; the rest is not read");
            self.problems.push(Problem { spot: None, message, help: Some("mend these first".into()) });
        }
    }

    fn read_entry(&mut self, entry: Entry<'_>, scope: &mut Scope) -> Result<(), Fault> {
        match entry.word(0) {
            Some(directive) if directive.starts_with('$') => self.read_directive(directive, entry, scope),
            _ => self.read_record(entry, scope),
        }
    }

    fn read_directive(&mut self, directive: &str, entry: Entry<'_>, scope: &mut Scope) -> Result<(), Fault> {
        let usage = match directive.to_ascii_uppercase().as_str() {
            "$ORIGIN" => "$ORIGIN name",
            "$TTL" => "$TTL seconds",
            "$INCLUDE" => "$INCLUDE file [origin]",
            "$GENERATE" => return self.read_generate(entry, scope),
            _ => {
                return Err(Fault::new(entry.tokens[0].span(), format!("`{directive}` is not a directive"))
                    .help("the directives are `$ORIGIN`, `$TTL`, `$INCLUDE` and `$GENERATE`; an owner that begins with `$` is written `\\$`"));
            }
        };
        let usage_help = format!("write `{usage}`");
        let words_max = if usage.starts_with("$INCLUDE") { 3 } else { 2 };
        if entry.tokens.len() < 2 {
            return Err(entry.missing(&format!("`{directive}` says nothing")).help(usage_help));
        }
        if let Some(extra) = entry.tokens.get(words_max) {
            let message = format!("`{}` is too much for `{directive}`", extra.text(&entry.source.text));
            return Err(Fault::new(extra.span(), message).help(usage_help));
        }
        match words_max {
            3 => return self.read_include(entry, scope),
            _ if usage.starts_with("$TTL") => scope.ttl_s = Some(read_ttl(entry, 1)?),
            _ => scope.origin = read_origin(entry, 1, &scope.origin)?,
        }
        Ok(())
    }

    fn read_include(&mut self, entry: Entry<'_>, scope: &Scope) -> Result<(), Fault> {
        let token = entry.tokens[1];
        let fault = |message: String, help: &str| Fault::new(token.span(), message).help(help);
        let origin = match entry.tokens.len() {
            2 => scope.origin.clone(),
            _ => read_origin(entry, 2, &scope.origin)?,
        };
        let path = rdata::unescape(entry.text(1), token.start)?;
        let path = String::from_utf8(path).map_err(|_| fault("the path is not UTF-8".into(), "rename the file"))?;
        let source = self.includes.open(&path).map_err(|error| fault(error.to_string(), error.help()))?;
        let range = 0..source.text.len();
        let inner = Scope { origin, ttl_s: scope.ttl_s, last_ttl_s: scope.last_ttl_s, last_owner: None };
        self.read_source(&Arc::new(source), range, inner);
        self.includes.close();
        Ok(())
    }

    /// Reads the line once for each number; the records and faults have the place of the whole line.
    fn read_generate(&mut self, entry: Entry<'_>, scope: &mut Scope) -> Result<(), Fault> {
        let usage = "write `$GENERATE 1-254 host$ A 192.0.2.$`";
        if entry.tokens.len() < 5 {
            return Err(entry.missing("`$GENERATE` needs a range, an owner, a type and its data").help(usage));
        }
        let numbers = generate::range(entry.text(1))
            .map_err(|error| Fault::new(entry.tokens[1].span(), error.to_string()).help(error.help()))?;
        let (mut line, mut tokens) = (String::new(), Vec::new());
        for number in numbers {
            line.clear();
            for token in &entry.tokens[2..] {
                let quote = if token.shape == Shape::Quoted { "\"" } else { "" };
                line.push_str(quote);
                generate::substitute(token.text(&entry.source.text), number, &mut line)
                    .map_err(|error| Fault::new(token.span(), error.to_string()).help(error.help()))?;
                line.push_str(quote);
                line.push(' ');
            }
            let range = 0..line.len();
            let source = Arc::new(Source { name: entry.source.name.clone(), text: std::mem::take(&mut line) });
            Lexer::new(&source.text, range).next_entry(&mut tokens).expect("what was read once can be read again");
            let read = self.read_record(Entry { source: &source, tokens: &tokens, blank_start: false }, scope);
            read.map_err(|fault| Fault {
                span: entry.span(),
                message: format!("`{}`: {}", source.text.trim_end(), fault.message),
                help: fault.help.or_else(|| Some(usage.into())),
            })?;
            if let Some(record) = self.records.last_mut() {
                record.spot = Spot { source: entry.source.clone(), span: entry.span() };
            }
            line = Arc::try_unwrap(source).map_or_else(|_| String::new(), |source| source.text);
        }
        Ok(())
    }

    fn read_record(&mut self, entry: Entry<'_>, scope: &mut Scope) -> Result<(), Fault> {
        let mut at = 0;
        if !entry.blank_start {
            // Kept even when the rest of the record is broken: the next lines may lean on it.
            scope.last_owner = None;
            scope.last_owner = Some(read_owner(entry, &scope.origin)?);
            at = 1;
        }
        let head = read_head(entry, at)?;
        let owner = scope.last_owner.clone().ok_or_else(|| {
            Fault::new(
                entry.tokens[0].span(),
                "no owner to take over: no record with a good owner stands before this line",
            )
            .help("begin the line with the owner's name, without a blank before it")
        })?;
        if head.ttl_s.is_some() {
            scope.last_ttl_s = head.ttl_s;
        }
        let ttl_s = head.ttl_s.or(scope.ttl_s).or(scope.last_ttl_s).unwrap_or(self.zone_ttl_s);
        let (type_token, data) = (entry.tokens[head.type_index], &entry.tokens[head.type_index + 1..]);
        let rdata = rdata::read(Words::new(&entry.source.text, type_token, data, head.rtype, &scope.origin))?;
        let spot = Spot { source: entry.source.clone(), span: entry.span() };
        if self.records.len() >= RECORDS_MAX {
            self.stopped = true;
            return Err(
                Fault::new(spot.span, format!("more than {RECORDS_MAX} records in one zone")).help("split the zone")
            );
        }
        self.records.push(Record { owner, rtype: head.rtype, ttl_s, rdata, spot });
        Ok(())
    }
}

/// What stands between owner and data.
struct Head {
    ttl_s: Option<u32>,
    rtype: u16,
    type_index: usize,
}

/// TTL and class in either order, each at most once and both optional, then the type.
fn read_head(entry: Entry<'_>, first: usize) -> Result<Head, Fault> {
    let (mut ttl_s, mut class) = (None, false);
    for at in first..entry.tokens.len() {
        let Some(word) = entry.word(at) else {
            let message = format!("`{}` stands where the record type should be", entry.text(at));
            return Err(Fault::new(entry.tokens[at].span(), message).help(RECORD_HELP));
        };
        if ttl_s.is_none() && is_ttl(word) {
            ttl_s = Some(read_ttl(entry, at)?);
        } else if let Some(known) = read_class(word).filter(|_| !class) {
            if !known {
                return Err(Fault::new(entry.tokens[at].span(), format!("class `{word}` is not served"))
                    .help("only class IN is; leave the class out"));
            }
            class = true;
        } else if let Some(rtype) = types::number(word) {
            return Ok(Head { ttl_s, rtype, type_index: at });
        } else {
            return Err(unknown_type(entry, at));
        }
    }
    Err(entry.missing("the record has no type").help(RECORD_HELP))
}

const RECORD_HELP: &str = "a record is: owner, TTL and class if wanted, type, data";

/// `Some(true)` for IN, `Some(false)` for any other class, `None` for a word that is no class.
fn read_class(word: &str) -> Option<bool> {
    let is = |class: &str| word.eq_ignore_ascii_case(class);
    if is("IN") || is("CLASS1") {
        return Some(true);
    }
    let numbered = word.get(..5).is_some_and(|p| p.eq_ignore_ascii_case("CLASS"));
    let numbered = numbered && word.len() > 5 && word[5..].bytes().all(|b| b.is_ascii_digit());
    // ANY is a type as well and refused as such.
    (numbered || is("CH") || is("CS") || is("HS") || is("NONE")).then_some(false)
}

fn unknown_type(entry: Entry<'_>, at: usize) -> Fault {
    let word = entry.text(at);
    let fault = Fault::new(entry.tokens[at].span(), format!("`{word}` is not a record type"));
    let begins_head = |w: &str| is_ttl(w) || read_class(w).is_some() || types::number(w).is_some();
    if at == 0 && entry.word(1).is_some_and(begins_head) {
        return fault.help(format!(
            "a line that begins with a blank belongs to the owner before it; if `{word}` is the owner, remove the blank"
        ));
    }
    if at == 1 && types::number(entry.text(0)).is_some() {
        return fault.help("a line begins with the owner's name, or with a blank for the owner before it");
    }
    if matches!(word.to_ascii_uppercase().as_str(), "ANAME" | "ALIAS") {
        return fault.help("there is no such type in DNS; a route with address endpoints can stand at any name");
    }
    let upper = word.to_ascii_uppercase();
    let nearest = types::mnemonics().max_by(|a, b| strsim::jaro(a, &upper).total_cmp(&strsim::jaro(b, &upper)));
    match nearest.filter(|name| strsim::jaro(name, &upper) > 0.7) {
        Some(name) => fault.help(format!("did you mean `{name}`?")),
        None => fault.help("types without a name are written `TYPEnnn \\# length hex`"),
    }
}

/// True for a word that can only be meant as a TTL: no type, class or sensible mistake for one begins with a digit.
fn is_ttl(word: &str) -> bool {
    word.as_bytes()[0].is_ascii_digit() && word.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn read_ttl(entry: Entry<'_>, at: usize) -> Result<u32, Fault> {
    let read = entry.word(at).and_then(rdata::seconds).filter(|s| *s <= TTL_MAX_S);
    read.ok_or_else(|| {
        let message = format!("`{}` is not a TTL from 0 to {TTL_MAX_S} seconds", entry.text(at));
        Fault::new(entry.tokens[at].span(), message).help("write seconds, or units like `1h30m`")
    })
}

fn read_origin(entry: Entry<'_>, at: usize, origin: &Name) -> Result<Name, Fault> {
    match entry.word(at) {
        Some(word) => rdata::read_name(word, entry.tokens[at].span(), origin),
        None => Err(Fault::new(entry.tokens[at].span(), "a name is written without quotes").help("remove the quotes")),
    }
}

fn read_owner(entry: Entry<'_>, origin: &Name) -> Result<Name, Fault> {
    read_origin(entry, 0, origin)
}
