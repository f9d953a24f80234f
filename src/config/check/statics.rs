//! Static records: where their text is. What it says is for the zone room.

use std::{path::Path, sync::Arc};

use super::Context;
use crate::config::{
    files,
    model::{KeyText, Secret, ZoneText},
    report::{Source, Spot},
    section::At,
    spec::ZoneSpec,
    value::quote,
};

/// Largest zone file, in bytes.
const ZONE_BYTES_MAX: u64 = 256 << 20;
/// Largest key file, in bytes: a key has some 300.
const KEY_BYTES_MAX: u64 = 1 << 20;

impl Context<'_> {
    /// The zone's file and its inline records.
    pub(super) fn build_texts(&self, spec: &ZoneSpec) -> Vec<ZoneText> {
        let file = (!spec.file.value.is_empty()).then(|| self.read_zone_file(&spec.file)).flatten();
        let records = (!spec.records.value.is_empty()).then(|| self.inline_records(spec));
        file.into_iter().chain(records).collect()
    }

    /// The zone's signing keys. One that cannot be read is never made anew: the zone above holds a DS for the old one.
    pub(super) fn build_keys(&self, spec: &ZoneSpec) -> Vec<KeyText> {
        let mut keys: Vec<KeyText> = Vec::new();
        for at in &spec.dnssec_keys {
            let path = self.folder.join(&at.value);
            match files::read_text(&path, KEY_BYTES_MAX) {
                Ok(_) if keys.iter().any(|key| key.path == path) => {
                    let message = format!("the key file {} stands here twice", quote(&at.value));
                    self.problems.add(&at.span, message, "remove one of the two");
                }
                Ok(text) => keys.push(KeyText { path, text: Secret(text), spot: self.problems.spot(at.span.clone()) }),
                Err(why) => {
                    let message = format!("the key file {} {why}", quote(&at.value));
                    let make = format!("isochrone key new {} --out {}", spec.name.value, path.display());
                    let help = format!("copy it from another server of the zone, or for a new zone make one: {make}");
                    self.problems.add(&at.span, message, help);
                }
            }
        }
        keys
    }

    fn read_zone_file(&self, at: &At<String>) -> Option<ZoneText> {
        let path = self.folder.join(&at.value);
        match files::read_text(&path, ZONE_BYTES_MAX) {
            Ok(text) => {
                let span = 0..text.len();
                let source = Arc::new(Source { name: path.display().to_string(), text });
                let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
                Some(ZoneText { spot: Spot { source, span }, folder: Some(folder) })
            }
            Err(why) => {
                let message = format!("the zone file {} {why}", quote(&at.value));
                let is_text = !why.contains("UTF-8");
                let unreadable = "save it as UTF-8; in zone files other bytes are written \\DDD";
                let help = if is_text { self.looked_for(&at.value) } else { unreadable.into() };
                self.problems.add(&at.span, message, help);
                None
            }
        }
    }

    /// A stretch of the configuration file where the string stands there letter for letter; with escapes in it, a text of its
    /// own.
    fn inline_records(&self, spec: &ZoneSpec) -> ZoneText {
        let records = &spec.records;
        let source = self.problems.source();
        let raw = source.text.get(records.span.clone()).unwrap_or("");
        let start = ["\"\"\"\r\n", "\"\"\"\n", "\"\"\"", "'''\r\n", "'''\n", "'''", "\"", "'"]
            .iter()
            .find(|mark| raw.starts_with(**mark))
            .map_or(0, |mark| records.span.start + mark.len());
        let span = start..start + records.value.len();
        if source.text.get(span.clone()) == Some(records.value.as_str()) {
            return ZoneText { spot: self.problems.spot(span), folder: None };
        }
        let name = format!("{}: zones.\"{}\".records", source.name, spec.name.value);
        let span = 0..records.value.len();
        let source = Arc::new(Source { name, text: records.value.clone() });
        ZoneText { spot: Spot { source, span }, folder: None }
    }
}
