//! Reads a TOML table field by field: each with its bounds, and none that nobody asked for.
//!
//! A field is taken out of the table when it is read; what is left at [`Fields::finish`] is
//! refused, with the nearest name that would have been taken. Knows no file and no meaning.

use std::ops::RangeInclusive;

use toml::{Table, Value};

/// What is wrong with a field. `place` is its path in the file: `files[2].sha256`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {cause}")]
pub struct FieldError {
    pub place: String,
    pub cause: String,
}

impl FieldError {
    pub fn new(place: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { place: place.into(), cause: cause.into() }
    }
}

/// A table that is being read.
#[derive(Debug)]
pub struct Fields {
    /// The table's own path; empty for the whole file.
    path: String,
    table: Table,
    /// Every key that was asked for, there or not.
    known: Vec<&'static str>,
}

/// Names further from each other than this (1: equal) are no suggestion.
const SIMILARITY_MIN: f64 = 0.7;

impl Fields {
    /// Parses a whole file.
    ///
    /// # Errors
    /// If it is not TOML: the place is the line.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let table = text.parse::<Table>().map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.get(..start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            FieldError::new(format!("line {line}"), format!("not TOML: {}", error.message()))
        })?;
        Ok(Self { path: String::new(), table, known: Vec::new() })
    }

    /// The path of one of its fields, for errors.
    pub fn place(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// An error about one of its fields.
    pub fn error(&self, key: &str, cause: impl Into<String>) -> FieldError {
        FieldError::new(self.place(key), cause)
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn needed<T>(&self, key: &str, value: Option<T>) -> Result<T, FieldError> {
        value.ok_or_else(|| match nearest(self.table.keys().map(String::as_str), key) {
            Some(other) => self.error(key, format!("missing; is `{}` meant?", shown(other))),
            None => self.error(key, "missing; add it"),
        })
    }

    fn wrong(&self, key: &str, wanted: &str, found: &Value) -> FieldError {
        self.error(key, format!("{wanted} is needed, not a value of type {}", found.type_str()))
    }

    /// A text of a length in bytes, without control characters; `None` if it is not there.
    pub fn text_or_none(
        &mut self,
        key: &'static str,
        bytes: RangeInclusive<usize>,
    ) -> Result<Option<String>, FieldError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => {
                check_text(&text, &bytes).map_err(|cause| self.error(key, cause))?;
                Ok(Some(text))
            }
            Some(other) => Err(self.wrong(key, "a text", &other)),
        }
    }

    /// A text that must be there.
    pub fn text(
        &mut self,
        key: &'static str,
        bytes: RangeInclusive<usize>,
    ) -> Result<String, FieldError> {
        let text = self.text_or_none(key, bytes)?;
        self.needed(key, text)
    }

    /// Texts, each of a length in bytes; none of them if the key is not there.
    pub fn texts(
        &mut self,
        key: &'static str,
        count: RangeInclusive<usize>,
        bytes: RangeInclusive<usize>,
    ) -> Result<Vec<String>, FieldError> {
        let values = match self.take(key) {
            None if *count.start() == 0 => return Ok(Vec::new()),
            None => return self.needed(key, None),
            Some(Value::Array(values)) => values,
            Some(other) => return Err(self.wrong(key, "a list of texts", &other)),
        };
        self.check_count(key, values.len(), &count)?;
        let mut texts = Vec::with_capacity(values.len());
        for (i, value) in values.into_iter().enumerate() {
            let Value::String(text) = value else {
                return Err(self.wrong(&format!("{key}[{i}]"), "a text", &value));
            };
            check_text(&text, &bytes).map_err(|cause| self.error(&format!("{key}[{i}]"), cause))?;
            texts.push(text);
        }
        Ok(texts)
    }

    fn check_count(
        &self,
        key: &str,
        count: usize,
        range: &RangeInclusive<usize>,
    ) -> Result<(), FieldError> {
        if range.contains(&count) {
            return Ok(());
        }
        let (min, max) = (range.start(), range.end());
        Err(self.error(key, format!("{count} entries; {min} to {max} are allowed")))
    }

    /// A whole number.
    pub fn integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<u64, FieldError> {
        let value = self.take(key);
        let value = self.needed(key, value)?;
        let Value::Integer(number) = value else {
            return Err(self.wrong(key, "a whole number", &value));
        };
        u64::try_from(number).ok().filter(|number| range.contains(number)).ok_or_else(|| {
            let (min, max) = (range.start(), range.end());
            self.error(key, format!("{number} is out of range: {min} to {max} are allowed"))
        })
    }

    /// A whole number, or `default` if it is not there.
    pub fn integer_or(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        default: u64,
    ) -> Result<u64, FieldError> {
        if self.table.contains_key(key) {
            return self.integer(key, range);
        }
        self.known.push(key);
        Ok(default)
    }

    /// `true` or `false`, or `default` if it is not there.
    pub fn boolean_or(&mut self, key: &'static str, default: bool) -> Result<bool, FieldError> {
        match self.take(key) {
            None => Ok(default),
            Some(Value::Boolean(value)) => Ok(value),
            Some(other) => Err(self.wrong(key, "true or false", &other)),
        }
    }

    /// A whole number that counts something in memory.
    pub fn count(
        &mut self,
        key: &'static str,
        range: RangeInclusive<usize>,
    ) -> Result<usize, FieldError> {
        let wide = |n: &usize| u64::try_from(*n).unwrap_or(u64::MAX);
        let number = self.integer(key, wide(range.start())..=wide(range.end()))?;
        usize::try_from(number).map_err(|_| self.error(key, "does not fit in memory"))
    }

    /// A number; whole ones are taken too.
    #[expect(clippy::cast_precision_loss, reason = "bounds here are small; the text is decimal")]
    pub fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<f64>,
    ) -> Result<f64, FieldError> {
        let value = self.take(key);
        let number = match self.needed(key, value)? {
            Value::Float(number) => number,
            Value::Integer(number) => number as f64,
            other => return Err(self.wrong(key, "a number", &other)),
        };
        // A NaN is in no range.
        if range.contains(&number) {
            return Ok(number);
        }
        let (min, max) = (range.start(), range.end());
        Err(self.error(key, format!("{number} is out of range: {min} to {max} are allowed")))
    }

    /// A table inside; `None` if it is not there.
    pub fn table(&mut self, key: &'static str) -> Result<Option<Self>, FieldError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Table(table)) => {
                Ok(Some(Self { path: self.place(key), table, known: Vec::new() }))
            }
            Some(other) => Err(self.wrong(key, "a table", &other)),
        }
    }

    /// Tables in a list, `[[key]]`; none if the key is not there.
    pub fn tables(
        &mut self,
        key: &'static str,
        count: RangeInclusive<usize>,
    ) -> Result<Vec<Self>, FieldError> {
        let values = match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(values)) => values,
            Some(other) => return Err(self.wrong(key, "a list of tables", &other)),
        };
        self.check_count(key, values.len(), &count)?;
        let tables = values.into_iter().enumerate().map(|(i, value)| match value {
            Value::Table(table) => {
                let path = format!("{}[{i}]", self.place(key));
                Ok(Self { path, table, known: Vec::new() })
            }
            other => Err(self.wrong(&format!("{key}[{i}]"), "a table", &other)),
        });
        tables.collect()
    }

    /// Refuses what nobody asked for.
    pub fn finish(self) -> Result<(), FieldError> {
        let Some(key) = self.table.keys().next() else { return Ok(()) };
        let cause = match nearest(self.known.iter().copied(), key) {
            Some(name) => format!("unknown key; did you mean `{name}`?"),
            None => format!("unknown key; remove it, or use one of: {}", self.known.join(", ")),
        };
        Err(self.error(&shown(key), cause))
    }
}

/// The one of `names` that is most like `name`, if any is like it.
fn nearest<'a>(names: impl Iterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    let similarities = names.map(|other| (strsim::jaro_winkler(other, name), other));
    let best = similarities.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(similarity, _)| *similarity >= SIMILARITY_MIN).map(|(_, other)| other)
}

/// A key as it may be shown.
fn shown(key: &str) -> String {
    key.chars().take(64).flat_map(char::escape_debug).collect()
}

fn check_text(text: &str, bytes: &RangeInclusive<usize>) -> Result<(), String> {
    if !bytes.contains(&text.len()) {
        let (min, max) = (bytes.start(), bytes.end());
        return Err(format!("{} bytes long; {min} to {max} are allowed", text.len()));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err("holds a control character; remove it".to_owned());
    }
    Ok(())
}
