//! Numbers as labels: an intent with its confidence, and the slots that words were tagged with.

use super::config::{Config, OUT_OF_SCOPE, Tag};
use super::features::Word;

/// What the model read in a sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub intent: String,
    /// The probability of the most probable intent, be it below the threshold or not.
    pub confidence: f32,
    /// In the order of the sentence.
    pub spans: Vec<Span>,
}

/// Words next to each other that fill a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub slot: String,
    /// The words: from, and to before which.
    pub words: (usize, usize),
}

/// The most probable intent and its probability.
pub fn best_intent(logits: &[f32], config: &Config) -> (String, f32) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp = |logit: &f32| ((logit - max) / config.temperature).exp();
    let sum: f32 = logits.iter().map(exp).sum();
    // exp(0) / sum: the best one's.
    let confidence = 1.0 / sum;
    let best = logits.iter().position(|&logit| logit >= max);
    let label = best.and_then(|best| config.intents.get(best));
    match label {
        Some(label) if confidence >= config.threshold => (label.clone(), confidence),
        _ => (OUT_OF_SCOPE.to_owned(), confidence),
    }
}

/// The most probable tag of each word. `logits` are `[words, tags]`.
pub fn best_tags<'a>(logits: &[f32], config: &'a Config) -> Vec<&'a Tag> {
    let rows = logits.chunks_exact(config.tags.len().max(1));
    let best = |row: &[f32]| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let at = row.iter().position(|&logit| logit >= max)?;
        config.tags.get(at)
    };
    rows.map(|row| best(row).unwrap_or(&Tag::Outside)).collect()
}

/// Joins tagged words. A slot that begins with `I-` begins nevertheless: dropping it would lose a
/// value for the sake of a form.
pub fn spans(tags: &[&Tag]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (at, tag) in tags.iter().enumerate() {
        let (slot, goes_on) = match tag {
            Tag::Outside => continue,
            Tag::Begin(slot) => (slot, false),
            Tag::Inside(slot) => (slot, true),
        };
        match spans.last_mut() {
            Some(last) if goes_on && last.slot == *slot && last.words.1 == at => {
                last.words.1 = at + 1;
            }
            _ => spans.push(Span { slot: slot.clone(), words: (at, at + 1) }),
        }
    }
    spans
}

impl Span {
    /// What the speaker said, as it was written.
    pub fn text<'a>(&self, sentence: &'a str, words: &[Word]) -> &'a str {
        let words = words.get(self.words.0..self.words.1).unwrap_or_default();
        match (words.first(), words.last()) {
            (Some(first), Some(last)) => {
                sentence.get(first.bytes.0..last.bytes.1).unwrap_or_default()
            }
            _ => "",
        }
    }
}
