//! Words as they are compared: singular, numbers as digits, misspellings at a distance.

use super::super::number::word_as_digits;
use super::english;

/// A word of a name or of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    /// Without the ending of a plural.
    stem: String,
    chars: usize,
    /// Which letters it has, one bit each: a bound on how much two words can have in common.
    letters: u32,
}

/// Of two words whose stems are equal.
const STEM_SIMILARITY: f32 = 0.97;
/// Of two words one of which begins with the other.
const PREFIX_SIMILARITY: f32 = 0.8;
const PREFIX_CHARS_MIN: usize = 4;
/// A misspelt word has at most this part of its characters wrong.
const ERRORS_PART_MAX: f32 = 0.4;
/// Shorter words are not misspelt: too many others are near them.
const MISSPELT_CHARS_MIN: usize = 4;
/// People misspell the first letter least of all.
const FIRST_LETTER_PENALTY: f32 = 0.08;

impl Token {
    /// `word` is in lower case.
    pub fn new(word: &str) -> Self {
        let word = word.strip_suffix("'s").unwrap_or(word);
        let text = word_as_digits(word).unwrap_or_else(|| word.replace('\'', ""));
        let stem = stem(&text).to_owned();
        let letters = stem.chars().fold(0, |letters, c| letters | letter_bit(c));
        Self { chars: stem.chars().count(), text, stem, letters }
    }

    /// Two words written as one.
    pub fn joined(first: &Self, second: &Self) -> Self {
        Self::new(&format!("{}{}", first.text, second.text))
    }

    pub fn is_plural(&self) -> bool {
        self.text.len() > self.stem.len()
    }
}

fn letter_bit(c: char) -> u32 {
    match c {
        'a'..='z' => 1 << (u32::from(c) - u32::from('a')),
        '0'..='9' => 1 << 26,
        _ => 1 << 27,
    }
}

/// The singular of an English word, near enough to compare: `lights`, `switches`, `batteries`.
fn stem(text: &str) -> &str {
    if text.len() < 4 || ["ss", "us", "is"].iter().any(|ending| text.ends_with(ending)) {
        return text;
    }
    for ending in ["ches", "shes", "xes", "sses"] {
        if text.ends_with(ending) {
            return text.strip_suffix("es").unwrap_or(text);
        }
    }
    // What is left of the singular of `batteries` compares well with `battery`, less one letter.
    text.strip_suffix('s').unwrap_or(text)
}

/// How alike two words are: 1 the same, 0 nothing to do with each other.
pub fn similarity(a: &Token, b: &Token) -> f32 {
    if a.text == b.text {
        return 1.0;
    }
    if a.stem == b.stem {
        return STEM_SIMILARITY;
    }
    spelling(a, b).max(english::synonymy(&a.stem, &b.stem))
}

#[expect(clippy::cast_precision_loss, reason = "lengths of words are small")]
fn spelling(a: &Token, b: &Token) -> f32 {
    let (short, long) = if a.chars <= b.chars { (a, b) } else { (b, a) };
    if short.chars < MISSPELT_CHARS_MIN {
        // "kitchn" is a misspelling; "tv" for "tb" is not, and numbers never are.
        return 0.0;
    }
    let errors_max = long.chars as f32 * ERRORS_PART_MAX;
    let mut best: f32 = 0.0;
    if short.chars >= PREFIX_CHARS_MIN && long.stem.starts_with(&short.stem) {
        best = PREFIX_SIMILARITY;
    }
    // Each error changes at most two letters of the sets.
    let differing = (a.letters ^ b.letters).count_ones() as f32 / 2.0;
    if (long.chars - short.chars) as f32 > errors_max || differing > errors_max {
        return best;
    }
    if short.letters & (1 << 26) != 0 || long.letters & (1 << 26) != 0 {
        return best;
    }
    let errors = strsim::osa_distance(&a.stem, &b.stem) as f32;
    if errors <= errors_max {
        let mut spelt = 1.0 - errors / long.chars as f32;
        if a.stem.chars().next() != b.stem.chars().next() {
            spelt -= FIRST_LETTER_PENALTY;
        }
        best = best.max(spelt);
    }
    best
}
