//! What a manifest says about a model of task `intent`: how a sentence becomes numbers, and what
//! the numbers that come back are called.

use std::collections::BTreeSet;

use crate::fields::{FieldError, Fields};

/// The label of sentences that ask for nothing that a home does.
pub const OUT_OF_SCOPE: &str = "out_of_scope";

const WORDS_MAX: usize = 256;
const NGRAM_CHARS_MAX: usize = 8;
const NGRAMS_MAX: usize = 128;
const BUCKETS_MAX: usize = 1 << 24;
const LABELS_MAX: usize = 4096;
const LABEL_BYTES_MAX: usize = 64;
const TEMPERATURE_MIN: f64 = 0.01;
const TEMPERATURE_MAX: f64 = 100.0;

/// The table `[intent]`, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Words of a sentence; more are cut off.
    pub words_max: usize,
    /// Characters of the shortest n-gram of a word.
    pub ngram_min: usize,
    /// Characters of the longest.
    pub ngram_max: usize,
    /// N-grams of a word, the word itself included; more are cut off.
    pub ngrams_max: usize,
    /// Ids of n-grams are 1 to `buckets - 1`; 0 is padding.
    pub buckets: usize,
    /// What `intent_logits` are of.
    pub intents: Vec<String>,
    /// What `tag_logits` are of.
    pub tags: Vec<Tag>,
    /// The logits of intents are divided by it before they become probabilities.
    pub temperature: f32,
    /// An intent of a lower confidence is taken for [`OUT_OF_SCOPE`].
    pub threshold: f32,
}

/// What a word is to a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// `O`: nothing.
    Outside,
    /// `B-slot`: its first word.
    Begin(String),
    /// `I-slot`: one of its further words.
    Inside(String),
}

impl Tag {
    fn parse(text: &str) -> Option<Self> {
        if text == "O" {
            return Some(Self::Outside);
        }
        let is_slot = |slot: &&str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            !slot.is_empty() && slot.bytes().all(plain)
        };
        match text.split_at_checked(2)? {
            ("B-", slot) => Some(slot).filter(is_slot).map(|slot| Self::Begin(slot.to_owned())),
            ("I-", slot) => Some(slot).filter(is_slot).map(|slot| Self::Inside(slot.to_owned())),
            _ => None,
        }
    }

    /// As the manifest writes it.
    pub fn text(&self) -> String {
        match self {
            Self::Outside => "O".to_owned(),
            Self::Begin(slot) => format!("B-{slot}"),
            Self::Inside(slot) => format!("I-{slot}"),
        }
    }
}

impl Config {
    /// Reads the table.
    pub fn read(mut fields: Fields) -> Result<Self, FieldError> {
        let words_max = fields.count("words_max", 1..=WORDS_MAX)?;
        let ngram_min = fields.count("ngram_min", 1..=NGRAM_CHARS_MAX)?;
        let ngram_max = fields.count("ngram_max", 1..=NGRAM_CHARS_MAX)?;
        if ngram_max < ngram_min {
            let cause = format!("{ngram_max} is less than ngram_min, {ngram_min}");
            return Err(fields.error("ngram_max", cause));
        }
        let ngrams_max = fields.count("ngrams_max", 1..=NGRAMS_MAX)?;
        let buckets = fields.count("buckets", 2..=BUCKETS_MAX)?;
        let intents = fields.texts("intents", 1..=LABELS_MAX, 1..=LABEL_BYTES_MAX)?;
        refuse_doubles(&intents).map_err(|cause| fields.error("intents", cause))?;
        let tags = fields.texts("tags", 1..=LABELS_MAX, 1..=LABEL_BYTES_MAX)?;
        refuse_doubles(&tags).map_err(|cause| fields.error("tags", cause))?;
        let parsed = tags.iter().enumerate().map(|(i, tag)| {
            let cause = "not a tag; write O, B-slot or I-slot";
            Tag::parse(tag).ok_or_else(|| fields.error(&format!("tags[{i}]"), cause))
        });
        let tags = parsed.collect::<Result<Vec<_>, _>>()?;
        if !tags.contains(&Tag::Outside) {
            return Err(fields.error("tags", "`O` is not among them; add it"));
        }
        let temperature = fields.number("temperature", TEMPERATURE_MIN..=TEMPERATURE_MAX)?;
        let threshold = fields.number("threshold", 0.0..=1.0)?;
        fields.finish()?;
        #[expect(clippy::cast_possible_truncation, reason = "both are small and need few digits")]
        Ok(Self {
            words_max,
            ngram_min,
            ngram_max,
            ngrams_max,
            buckets,
            intents,
            tags,
            temperature: temperature as f32,
            threshold: threshold as f32,
        })
    }
}

fn refuse_doubles(labels: &[String]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match labels.iter().find(|label| !seen.insert(label.as_str())) {
        Some(label) => Err(format!("`{label}` is named twice; keep one")),
        None => Ok(()),
    }
}
