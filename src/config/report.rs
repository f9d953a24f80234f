//! What is wrong with a file: every problem with its place, its line and its remedy.

use std::{ops::Range, sync::Arc};

/// A text that problems point into.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Path as the user wrote it.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A place in a source: a range of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// The file.
    pub source: Arc<Source>,
    /// Bytes within its text.
    pub span: Range<usize>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where; `None` when it is not about a place in a file that could be read.
    pub spot: Option<Spot>,
    /// What is wrong, one line.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// Everything that is wrong, in file order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The problems.
    pub problems: Vec<Problem>,
}
