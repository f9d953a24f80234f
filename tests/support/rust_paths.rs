//! Reading Rust source as far as the architecture test needs it: words and punctuation without comments and literals, the
//! module that each stands in, and every path (`a::b::c`, groups of `use` taken apart). Not a parser of the language.

/// What a test file wants to know of a source file.
#[derive(Debug, Default)]
pub struct SourceFile {
    /// Every path of two and more segments, in order.
    pub paths: Vec<FoundPath>,
    /// Every single word and its place, for keywords and method calls.
    pub words: Vec<Word>,
    /// `mod x;` declarations under `#[cfg(test)]`: files that hold tests.
    pub test_files: Vec<String>,
    /// Lines of text.
    pub lines: usize,
}

/// A path and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPath {
    /// Its segments; `crate`, `self` and `super` at its head are resolved to `crate` and the names of modules.
    pub segments: Vec<String>,
    /// Counted from 1.
    pub line: usize,
    /// It stands in a `#[cfg(test)]` item.
    pub in_test: bool,
}

/// A word and what stands around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word.
    pub text: String,
    /// The punctuation before it, if any: `.` for a method.
    pub before: Option<char>,
    /// Counted from 1.
    pub line: usize,
    /// It stands in a `#[cfg(test)]` item.
    pub in_test: bool,
}

/// Reads `text`, the source of the module `module` (`["crate", "wire", "name"]`). `own_crate` is a name that means `crate` as
/// well: the binary sees the library by its name.
pub fn read(module: &[&str], own_crate: Option<&str>, text: &str) -> SourceFile {
    let tokens = tokens(text);
    let mut file = SourceFile { lines: text.lines().count(), ..SourceFile::default() };
    let mut walk = Walk {
        tokens: &tokens,
        own_crate,
        modules: module.iter().map(|m| (*m).to_owned()).collect(),
        blocks: Vec::new(),
        test_next: false,
        nesting: 0,
    };
    let mut at = 0;
    while at < tokens.len() {
        at = walk.step(at, &mut file);
    }
    file
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Word(String),
    /// `::`
    PathSep,
    Mark(char),
}

#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    line: usize,
}

/// An open brace.
struct Block {
    is_module: bool,
    is_test: bool,
}

struct Walk<'t> {
    tokens: &'t [Token],
    own_crate: Option<&'t str>,
    modules: Vec<String>,
    blocks: Vec<Block>,
    /// `#[cfg(test)]` was read: it holds for the next item.
    test_next: bool,
    /// Open parentheses and brackets.
    nesting: usize,
}

impl Walk<'_> {
    fn word(&self, at: usize) -> Option<&str> {
        match &self.tokens.get(at)?.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    fn is(&self, at: usize, mark: char) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == Kind::Mark(mark))
    }

    fn is_sep(&self, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == Kind::PathSep)
    }

    fn in_test(&self) -> bool {
        self.test_next || self.blocks.iter().any(|block| block.is_test)
    }

    /// Takes what begins at `at`; gives where the next thing begins.
    fn step(&mut self, at: usize, file: &mut SourceFile) -> usize {
        let line = self.tokens[at].line;
        match &self.tokens[at].kind {
            Kind::Mark('#') if self.is(at + 1, '[') && self.word(at + 2) == Some("cfg") && self.is_cfg_test(at + 3) => {
                self.test_next = true;
                at + 7
            }
            Kind::Mark('{') => {
                self.blocks.push(Block { is_module: false, is_test: self.test_next });
                self.test_next = false;
                at + 1
            }
            Kind::Mark('}') => {
                if self.blocks.pop().is_some_and(|block| block.is_module) {
                    self.modules.pop();
                }
                at + 1
            }
            Kind::Mark('(' | '[') => {
                self.nesting += 1;
                at + 1
            }
            Kind::Mark(')' | ']') => {
                self.nesting = self.nesting.saturating_sub(1);
                at + 1
            }
            // Not the one of an array's length.
            Kind::Mark(';') if self.nesting == 0 => {
                self.test_next = false;
                at + 1
            }
            Kind::Word(word) if word == "mod" && self.is(at + 2, '{') => {
                self.modules.push(self.word(at + 1).unwrap_or_default().to_owned());
                self.blocks.push(Block { is_module: true, is_test: self.test_next });
                self.test_next = false;
                at + 3
            }
            Kind::Word(word) if word == "mod" && self.is(at + 2, ';') && self.test_next => {
                file.test_files.extend(self.word(at + 1).map(str::to_owned));
                at + 2
            }
            Kind::Word(word) if self.is_sep(at + 1) || (word == "use" && self.is(at + 1, '{')) => {
                let head = if word == "use" { at + 1 } else { at };
                let in_test = self.in_test();
                let mut found = Vec::new();
                let end = self.take_tree(head, &[], &mut found);
                file.paths.extend(found.into_iter().map(|(segments, line)| FoundPath { segments, line, in_test }));
                end
            }
            Kind::Word(word) => {
                let before = at.checked_sub(1).and_then(|before| match self.tokens[before].kind {
                    Kind::Mark(mark) => Some(mark),
                    _ => None,
                });
                file.words.push(Word { text: word.clone(), before, line, in_test: self.in_test() });
                at + 1
            }
            _ => at + 1,
        }
    }

    fn is_cfg_test(&self, at: usize) -> bool {
        self.is(at, '(') && self.word(at + 1) == Some("test") && self.is(at + 2, ')') && self.is(at + 3, ']')
    }

    /// A path or a tree of paths below `base`; gives where it ends.
    fn take_tree(&self, at: usize, base: &[String], found: &mut Vec<(Vec<String>, usize)>) -> usize {
        if self.is(at, '{') {
            let mut at = at + 1;
            while at < self.tokens.len() && !self.is(at, '}') {
                at = match &self.tokens[at].kind {
                    Kind::Word(_) | Kind::Mark('{' | '*') => self.take_tree(at, base, found),
                    _ => at + 1,
                };
            }
            return at + 1;
        }
        let mut segments = base.to_vec();
        let mut at = at;
        let line = self.tokens[at].line;
        loop {
            match self.tokens.get(at).map(|token| &token.kind) {
                Some(Kind::Word(word)) => self.push_segment(&mut segments, word),
                Some(Kind::Mark('*')) => segments.push("*".into()),
                // The middle of a path with type arguments, `Vec::<u8>::new`: what follows is of no interest.
                _ => break,
            }
            at += 1;
            if !self.is_sep(at) {
                break;
            }
            at += 1;
            if self.is(at, '{') {
                return self.take_tree(at, &segments, found);
            }
        }
        found.push((segments, line));
        if self.word(at) == Some("as") {
            at += 2;
        }
        at
    }

    fn push_segment(&self, segments: &mut Vec<String>, word: &str) {
        match word {
            "crate" if segments.is_empty() => segments.push("crate".into()),
            word if segments.is_empty() && Some(word) == self.own_crate => segments.push("crate".into()),
            "self" if segments.is_empty() => segments.clone_from(&self.modules),
            "super" if segments.is_empty() => {
                segments.extend_from_slice(&self.modules[..self.modules.len().max(2) - 1])
            }
            "super" => drop(segments.pop()),
            "self" => {}
            _ => segments.push(word.to_owned()),
        }
    }
}

/// Words and punctuation; comments, strings, characters, numbers and lifetimes left out.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => end_of_line(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => end_of_comment(&chars, at),
            '"' => end_of_string(&chars, at),
            '\'' => end_of_quote(&chars, at),
            c if c.is_alphabetic() || c == '_' => {
                let end = end_of_word(&chars, at);
                match literal_after_prefix(&chars, at, end) {
                    Some(end) => end,
                    None => {
                        tokens.push(Token { kind: Kind::Word(chars[at..end].iter().collect()), line });
                        end
                    }
                }
            }
            c if c.is_ascii_digit() => end_of_word(&chars, at),
            ':' if chars.get(at + 1) == Some(&':') => {
                tokens.push(Token { kind: Kind::PathSep, line });
                at + 2
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(Token { kind: Kind::Mark(c), line });
                }
                at + 1
            }
        };
        let end = end.min(chars.len());
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    tokens
}

fn end_of_line(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n)
}

/// Block comments nest.
fn end_of_comment(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (1, start + 2);
    while at < chars.len() && depth > 0 {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// A character (`'a'`, `'\''`) or a lifetime (`'a`).
fn end_of_quote(chars: &[char], start: usize) -> usize {
    match (chars.get(start + 1), chars.get(start + 2)) {
        (Some('\\'), _) => {
            let mut at = start + 3; // behind the escaped character, which may itself be a quote
            while at < chars.len() && chars[at] != '\'' {
                at += 1;
            }
            at + 1
        }
        (Some(_), Some('\'')) => start + 3,
        _ => end_of_word(chars, start + 1),
    }
}

fn end_of_word(chars: &[char], start: usize) -> usize {
    let is_inside = |c: &char| c.is_alphanumeric() || *c == '_';
    chars[start..].iter().position(|c| !is_inside(c)).map_or(chars.len(), |n| start + n)
}

/// Where the literal ends whose prefix is the word from `start` to `end`: `b"…"`, `c"…"`, `r"…"`, `br#"…"#`, `b'…'`. `None` for a
/// word of its own; `r#word` is one, too, but for its two first characters.
fn literal_after_prefix(chars: &[char], start: usize, end: usize) -> Option<usize> {
    let prefix: String = chars[start..end].iter().collect();
    let hashes = chars[end..].iter().take_while(|c| **c == '#').count();
    match (prefix.as_str(), chars.get(end + hashes)) {
        ("b", Some('\'')) if hashes == 0 => Some(end_of_quote(chars, end)),
        ("b" | "c", Some('"')) if hashes == 0 => Some(end_of_string(chars, end)),
        ("r" | "br" | "cr", Some('"')) => {
            let mut at = end + hashes + 1;
            while at < chars.len() {
                let closes =
                    chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
                if closes {
                    return Some(at + 1 + hashes);
                }
                at += 1;
            }
            Some(chars.len())
        }
        ("r", Some(_)) if hashes == 1 => Some(end + 1),
        _ => None,
    }
}
