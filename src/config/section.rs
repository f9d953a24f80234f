//! The section reader: takes typed values out of a table of the file, and notes every unknown key, missing key, wrong type and
//! value out of range. Knows the catalogue of keys and nothing of what they are for.

use std::{cell::RefCell, ops::Range, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    keys::{self, Absent, ENTRIES_MAX, Form, Key, Schema},
    leaf::{integer_of, is_default, texts_of, type_of, wrong_type},
    report::{Problem, Report, Source, Spot},
    syntax::Cleaned,
    value::{Fault, duration_ms, listed, nearest, one_of, quote, show_ms},
};

/// Collects what is wrong with one file.
#[derive(Debug)]
pub(crate) struct Problems {
    source: Arc<Source>,
    list: RefCell<Vec<Problem>>,
    /// Blanked statements, see [`Cleaned`].
    lost: Vec<Range<usize>>,
    lost_header: bool,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct At<T> {
    /// The value; a stand-in when it is [`Origin::Bad`].
    pub value: T,
    /// Where it stands, or the head of its section for a default.
    pub span: Range<usize>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From the file.
    File,
    /// The key is absent.
    Default,
    /// The file's value is wrong; a problem has been noted, and nothing should be concluded from the stand-in.
    Bad,
}

/// One table of the file, to be read by a [`Schema`].
#[derive(Debug)]
pub(crate) struct Section<'a> {
    /// As it stands in messages: `[checks.web]`.
    pub label: String,
    /// Its header.
    pub span: Range<usize>,
    /// Where problems go.
    pub problems: &'a Problems,
    schema: &'static Schema,
    table: &'a DeTable<'a>,
}

impl Problems {
    /// Begins with the syntax errors of the file.
    pub(crate) fn new(source: Arc<Source>, cleaned: &mut Cleaned) -> Self {
        let problems = Problems {
            source,
            list: RefCell::default(),
            lost: std::mem::take(&mut cleaned.lost),
            lost_header: cleaned.lost_header,
        };
        for error in cleaned.errors.drain(..) {
            problems.push(Problem { help: error.help, ..Problem::at(problems.spot(error.span), error.message) });
        }
        problems
    }

    /// A place in the file.
    pub(crate) fn spot(&self, span: Range<usize>) -> Spot {
        Spot { source: self.source.clone(), span }
    }

    /// Notes a problem at a place of the file.
    pub(crate) fn add(&self, span: &Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.push(Problem::at(self.spot(span.clone()), message).with_help(help));
    }

    /// Notes a fault at a place of the file.
    pub(crate) fn fault(&self, span: &Range<usize>, fault: Fault) {
        self.push(Problem { help: fault.help, ..Problem::at(self.spot(span.clone()), fault.message) });
    }

    /// Notes that something named here is nowhere in the file; silent when a broken header may have held it.
    pub(crate) fn absent(&self, span: &Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        if !self.lost_header {
            self.add(span, message, help);
        }
    }

    /// Notes a problem.
    pub(crate) fn push(&self, problem: Problem) {
        self.list.borrow_mut().push(problem);
    }

    /// The source itself.
    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// True when a broken statement stands in the section headed at `header`: a key that seems missing may have been there.
    fn lost_in(&self, header: &Range<usize>) -> bool {
        let text = &self.source.text;
        self.lost.iter().any(|lost| {
            let between = text.get(header.end..lost.start);
            between.is_some_and(|b| !b.contains("\n["))
        })
    }

    /// Everything that was noted.
    pub(crate) fn report(self) -> Report {
        Report::new(self.list.into_inner())
    }
}

impl<T> At<T> {
    pub(crate) fn file(value: T, span: Range<usize>) -> Self {
        At { value, span, origin: Origin::File }
    }

    /// False when the value is a stand-in for a wrong one.
    pub(crate) fn is_sound(&self) -> bool {
        self.origin != Origin::Bad
    }

    /// True when it stands in the file and is sound.
    pub(crate) fn is_given(&self) -> bool {
        self.origin == Origin::File
    }
}

impl<'a> Section<'a> {
    /// Opens a table and notes every key that does not belong there.
    pub(crate) fn open(
        problems: &'a Problems,
        schema: &'static Schema,
        label: String,
        table: &'a DeTable<'a>,
        span: Range<usize>,
    ) -> Self {
        let section = Section { label, span, problems, schema, table };
        section.note_strangers();
        section
    }

    /// Opens a table without looking for keys that do not belong there.
    pub(crate) fn open_unchecked(
        problems: &'a Problems,
        schema: &'static Schema,
        label: String,
        table: &'a DeTable<'a>,
        span: Range<usize>,
    ) -> Self {
        Section { label, span, problems, schema, table }
    }

    /// Notes unknown keys and keys whose feature this version has not got.
    pub(crate) fn note_strangers(&self) {
        for (key, value) in self.table.iter() {
            let name = key.get_ref().as_ref();
            if self.schema.sections.contains(&name) {
                continue;
            }
            if self.schema.later_sections.contains(&name) {
                let message = format!("the section {} is not supported by this version", quote(name));
                self.problems.add(&key.span(), message, "remove it");
                continue;
            }
            match self.schema.key(name) {
                Some(known) if known.supported || is_default(known, value.get_ref()) => {}
                Some(_) => {
                    let message = format!("{} is not supported by this version", quote(name));
                    self.problems.add(&key.span(), message, "remove it");
                }
                None => self.note_unknown(name, &key.span(), value.get_ref()),
            }
        }
    }

    fn note_unknown(&self, name: &str, span: &Range<usize>, value: &DeValue<'_>) {
        let is_table = matches!(value, DeValue::Table(_));
        let kind = if is_table { "section" } else { "key" };
        let known = self.schema.names();
        let elsewhere = keys::SECTIONS.iter().find(|s| !is_table && s.key(name).is_some_and(|k| k.supported));
        let help = match (nearest(name, known.iter().copied()), elsewhere) {
            _ if is_table && self.schema.is_named() => {
                "a name with dots or a star stands in quotes, for example [zones.\"geo.example.com\".routes.\"*.app\"]"
                    .into()
            }
            (Some(near), _) => format!("did you mean {}?", quote(near)),
            (None, Some(other)) => format!("it belongs in {}", quote(other.title)),
            (None, None) => format!("{} may hold {}", self.label, listed(&known, "and")),
        };
        self.problems.add(span, format!("unknown {kind} {} in {}", quote(name), self.label), help);
    }

    /// True when the file sets `name` here.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// The value of `name` as it stands in the tree.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(name)
    }

    /// Where the key `name` itself stands, or else the head of the section.
    pub(crate) fn key_span(&self, name: &str) -> Range<usize> {
        self.table.get_key_value(name).map_or(self.span.clone(), |(key, _)| key.span())
    }

    /// Notes that a required key is missing; silent when a broken line of this section may have held it, or a misspelt key does.
    pub(crate) fn note_missing(&self, name: &str, help: impl Into<String>) {
        let is_misspelt = |key: &str| {
            self.schema.key(key).is_none() && nearest(key, self.schema.names().iter().copied()) == Some(name)
        };
        if !self.lost_lines() && !self.holds_stray_section() && !self.table.keys().any(|key| is_misspelt(key.get_ref()))
        {
            self.problems.add(&self.span, format!("{} lacks {}", self.label, quote(name)), help);
        }
    }

    /// True when a line of this section could not be read: what seems absent may have stood there.
    pub(crate) fn lost_lines(&self) -> bool {
        self.problems.lost_in(&self.span)
    }

    /// True when a section stands here that does not belong: most likely part of a name without its quotes.
    pub(crate) fn holds_stray_section(&self) -> bool {
        let is_stray = |key: &str| self.schema.key(key).is_none() && !self.schema.sections.contains(&key);
        self.table.iter().any(|(key, value)| matches!(value.get_ref(), DeValue::Table(_)) && is_stray(key.get_ref()))
    }

    fn form(&self, name: &str) -> &'static Key {
        self.schema.key(name).expect("only keys of the section's own schema are read")
    }

    fn absent<T>(&self, value: T) -> At<T> {
        At { value, span: self.span.clone(), origin: Origin::Default }
    }

    /// A whole number within the key's range.
    pub(crate) fn integer(&self, name: &str) -> At<i64> {
        let key = self.form(name);
        let stand_in = if let Absent::Integer(n) = key.default { n } else { 1 };
        let Some(value) = self.raw(name) else { return self.absent(stand_in) };
        let Form::Integer(low, high) = key.form else { unreachable!("the catalogue says what {name} is") };
        let read = integer_of(name, value.get_ref(), low, high);
        self.settle(value.span(), read, stand_in)
    }

    /// A decimal number within the key's range.
    pub(crate) fn number(&self, name: &str) -> At<f64> {
        let Form::Number(low, high) = self.form(name).form else { unreachable!("the catalogue says what {name} is") };
        let stand_in = if let Absent::Number(n) = self.form(name).default { n } else { 0.0 };
        let Some(value) = self.raw(name) else { return self.absent(stand_in) };
        let help = format!("write a number from {low} to {high}");
        let number = match value.get_ref() {
            DeValue::Float(text) => text.as_str().replace('_', "").parse::<f64>().ok(),
            DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).ok().map(|n| n as f64),
            other => {
                let fault = wrong_type(name, "a number", other, help);
                return self.settle(value.span(), Err(fault), stand_in);
            }
        };
        let read = number.filter(|n| (low..=high).contains(n)).ok_or_else(|| {
            let raw = &self.problems.source.text[value.span()];
            Fault::new(format!("{} is {}; it must be {low} to {high}", quote(name), quote(raw)), help)
        });
        self.settle(value.span(), read, stand_in)
    }

    /// A duration within the key's range, in milliseconds.
    pub(crate) fn duration_ms(&self, name: &str) -> At<i64> {
        let key = self.form(name);
        let stand_in = if let Absent::Duration(ms) = key.default { ms } else { 1000 };
        let Form::Duration(low, high) = key.form else { unreachable!("the catalogue says what {name} is") };
        let Some(value) = self.raw(name) else { return self.absent(stand_in) };
        let read = match value.get_ref() {
            DeValue::String(text) => duration_ms(text).and_then(|ms| {
                let range = format!("{} to {}", show_ms(low), show_ms(high));
                let text = quote(text);
                let outside = || {
                    let message = format!("{} is {text}; it must be {range}", quote(name));
                    Fault::new(message, format!("write a duration from {range}"))
                };
                if (low..=high).contains(&ms) { Ok(ms) } else { Err(outside()) }
            }),
            DeValue::Integer(n) => {
                Err(wrong_type(name, "a duration", value.get_ref(), format!("write {name} = \"{}s\"", n.as_str())))
            }
            other => Err(wrong_type(name, "a duration", other, "write a string such as \"10s\" or \"500ms\"")),
        };
        self.settle(value.span(), read, stand_in)
    }

    /// True or false.
    pub(crate) fn flag(&self, name: &str) -> At<bool> {
        let stand_in = matches!(self.form(name).default, Absent::Flag(true));
        let Some(value) = self.raw(name) else { return self.absent(stand_in) };
        let read = match value.get_ref() {
            DeValue::Boolean(flag) => Ok(*flag),
            other => {
                let meant = other.as_str().and_then(|text| text.parse().ok()).unwrap_or(stand_in);
                Err(wrong_type(name, "true or false", other, format!("write {name} = {meant}")))
            }
        };
        self.settle(value.span(), read, stand_in)
    }

    /// A string, without control characters where the key has a length.
    pub(crate) fn text(&self, name: &str) -> At<String> {
        let key = self.form(name);
        let stand_in = if let Absent::Text(text) = key.default { text } else { "" };
        let Some(value) = self.raw(name) else { return self.absent(stand_in.to_string()) };
        let read = match value.get_ref() {
            DeValue::String(text) => match key.form {
                Form::Text(max) if text.len() > max => {
                    let message = format!("{} is {} bytes long", quote(name), text.len());
                    Err(Fault::new(message, format!("write at most {max} bytes")))
                }
                _ => Ok(text.to_string()),
            },
            other => {
                let raw = self.problems.source.text[value.span()].split('\n').next().unwrap_or("");
                let help = match (&key.form, other) {
                    (Form::Choice(words), _) => format!("write {}", one_of(words)),
                    (_, DeValue::Integer(_) | DeValue::Float(_)) => format!("write {name} = \"{raw}\""),
                    (form, _) => format!("write a string: {}", form.range()),
                };
                Err(wrong_type(name, "a string", other, help))
            }
        };
        self.settle(value.span(), read, stand_in.to_string())
    }

    /// One of the key's words, as an index into them.
    pub(crate) fn choice(&self, name: &str) -> At<usize> {
        let Form::Choice(words) = self.form(name).form else { unreachable!("the catalogue says what {name} is") };
        let text = self.text(name);
        if !text.is_given() {
            let index = words.iter().position(|w| *w == text.value).unwrap_or(0);
            return At { value: index, span: text.span, origin: text.origin };
        }
        let read = words.iter().position(|word| *word == text.value).ok_or_else(|| {
            let help = match nearest(&text.value, words.iter().copied()) {
                Some(near) => format!("did you mean {}?", quote(near)),
                None => format!("write one of {}", one_of(words)),
            };
            Fault::new(format!("unknown {name} {}", quote(&text.value)), help)
        });
        self.settle(text.span, read, 0)
    }

    /// A list of strings; one string alone stands for a list of one. Elements of another type are noted and left out.
    pub(crate) fn texts(&self, name: &str) -> At<Vec<At<String>>> {
        let key = self.form(name);
        let Some(value) = self.raw(name) else {
            let words = if let Absent::Texts(words) = key.default { words } else { &[] };
            let list = words.iter().map(|word| self.absent(word.to_string())).collect();
            return self.absent(list);
        };
        let Form::Texts(max, what) = key.form else { unreachable!("the catalogue says what {name} is") };
        texts_of(self.problems, name, what, value, max)
    }

    /// The table of this name, if the file has it: a section of one.
    pub(crate) fn child(&self, name: &str, schema: &'static Schema) -> Option<Section<'a>> {
        let label = schema.title.to_string();
        let value = self.raw(name)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Section::open(self.problems, schema, label, table, value.span())),
            other => {
                let message = format!("{} is a section, not {}", quote(name), type_of(other));
                self.problems.add(&value.span(), message, format!("write {} on a line of its own", schema.title));
                None
            }
        }
    }

    /// The tables with free names inside the table `name`, in file order: name, place of the name, table, place of its header.
    pub(crate) fn entries(&self, name: &str, example: &str) -> Vec<Entry<'a>> {
        let Some(value) = self.raw(name) else { return Vec::new() };
        let DeValue::Table(table) = value.get_ref() else {
            let message = format!("{} is a section, not {}", quote(name), type_of(value.get_ref()));
            self.problems.add(&value.span(), message, format!("write {example} on a line of its own"));
            return Vec::new();
        };
        if table.len() > ENTRIES_MAX {
            let message = format!("{} entries in {}", table.len(), quote(name));
            self.problems.add(&value.span(), message, format!("write at most {ENTRIES_MAX}"));
        }
        let mut entries = Vec::new();
        for (key, value) in table.iter() {
            match value.get_ref() {
                DeValue::Table(table) => entries.push(Entry {
                    name: At::file(key.get_ref().to_string(), key.span()),
                    table,
                    span: value.span(),
                }),
                other => {
                    let message = format!("{} is a section, not {}", quote(key.get_ref()), type_of(other));
                    self.problems.add(&key.span(), message, format!("write {example} on a line of its own"));
                }
            }
        }
        entries
    }

    fn settle<T>(&self, span: Range<usize>, read: Result<T, Fault>, stand_in: T) -> At<T> {
        match read {
            Ok(value) => At::file(value, span),
            Err(fault) => {
                self.problems.fault(&span, fault);
                At { value: stand_in, span, origin: Origin::Bad }
            }
        }
    }
}

/// A table under a free name.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// The name.
    pub name: At<String>,
    /// What it names.
    pub table: &'a DeTable<'a>,
    /// Its header.
    pub span: Range<usize>,
}
