//! A sentence as numbers: words, and the ids of their character n-grams.
//!
//! The same, to the last id, as models/recipe/features.py: a bundle's golden.json proves it.
//! docs/bundle.md says it in words. Knows no label and no home.

use super::Config;

/// A word of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// In lower case, U+2019 written `'`.
    pub text: String,
    /// Where it stands in the sentence: bytes from and to.
    pub bytes: (usize, usize),
}

/// The words of `text`, all of them.
pub fn words(text: &str) -> Vec<Word> {
    let chars = lower_chars(text);
    let is_word = |at: usize| chars.get(at).is_some_and(|c| c.lower.is_alphanumeric());
    let is_digit = |at: usize| chars.get(at).is_some_and(|c| c.lower.is_ascii_digit());
    let mut words: Vec<Word> = Vec::new();
    // Whether the last word may be gone on with.
    let mut is_open = false;
    for (at, c) in chars.iter().enumerate() {
        let joins = at > 0
            && match c.lower {
                '\'' => is_word(at - 1) && is_word(at + 1),
                '.' | ',' => is_digit(at - 1) && is_digit(at + 1),
                _ => false,
            };
        let is_symbol = matches!(c.lower, '%' | '°');
        if c.lower.is_alphanumeric() || joins || is_symbol {
            match words.last_mut() {
                Some(word) if is_open && !is_symbol => {
                    word.text.push(c.lower);
                    word.bytes.1 = c.bytes.1;
                }
                _ => words.push(Word { text: c.lower.to_string(), bytes: c.bytes }),
            }
            is_open = !is_symbol;
        } else {
            is_open = false;
        }
    }
    words
}

/// A character of the sentence in lower case, and where what it was stands in the sentence.
struct LowerChar {
    lower: char,
    bytes: (usize, usize),
}

/// Lower case is of the whole sentence, because what becomes of a capital sigma depends on its
/// place; but it never changes how many characters come of one.
fn lower_chars(text: &str) -> Vec<LowerChar> {
    let lower = text.to_lowercase();
    let mut lower = lower.chars();
    let mut chars = Vec::with_capacity(text.len());
    for (from, c) in text.char_indices() {
        let bytes = (from, from + c.len_utf8());
        for lower in lower.by_ref().take(c.to_lowercase().count()) {
            let lower = if lower == '\u{2019}' { '\'' } else { lower };
            chars.push(LowerChar { lower, bytes });
        }
    }
    chars
}

/// Appends the `ngrams_max` ids of `word` to `ids`.
pub fn push_ids(word: &str, config: &Config, ids: &mut Vec<i64>) {
    let end = ids.len() + config.ngrams_max;
    let marked: Vec<char> =
        std::iter::once('<').chain(word.chars()).chain(std::iter::once('>')).collect();
    let lengths = config.ngram_min..=config.ngram_max;
    let grams = lengths.filter(|&n| n < marked.len()).flat_map(|n| marked.windows(n));
    let all = std::iter::once(marked.as_slice()).chain(grams);
    ids.extend(all.take(config.ngrams_max).map(|gram| id(gram, config.buckets)));
    ids.resize(end, 0);
}

/// 1 to `buckets - 1`.
fn id(gram: &[char], buckets: usize) -> i64 {
    let mut hash = 0x811c_9dc5_u32;
    let mut utf8 = [0; 4];
    for c in gram {
        for &byte in c.encode_utf8(&mut utf8).as_bytes() {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }
    let buckets = u32::try_from(buckets.saturating_sub(1)).unwrap_or(u32::MAX).max(1);
    i64::from(hash % buckets) + 1
}
