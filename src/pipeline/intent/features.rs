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
///
/// A word is a run of letters and digits; an apostrophe may stand between two of them, and `.` or
/// `,` between two ASCII digits. `%` and `°` are words of their own.
pub fn words(text: &str) -> Vec<Word> {
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let char_at = |at: usize| chars.get(at).map(|&(_, c)| c);
    let is_word = |at: usize| char_at(at).is_some_and(char::is_alphanumeric);
    let is_digit = |at: usize| char_at(at).is_some_and(|c| c.is_ascii_digit());
    let goes_on = |at: usize| match char_at(at) {
        Some('\'' | '\u{2019}') => is_word(at - 1) && is_word(at + 1),
        Some('.' | ',') => is_digit(at - 1) && is_digit(at + 1),
        Some(c) => c.is_alphanumeric(),
        None => false,
    };
    let byte = |at: usize| chars.get(at).map_or(text.len(), |&(byte, _)| byte);
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(c) = char_at(at) {
        let from = at;
        at += 1;
        if c.is_alphanumeric() {
            while goes_on(at) {
                at += 1;
            }
        } else if !matches!(c, '%' | '°') {
            continue;
        }
        let bytes = (byte(from), byte(at));
        let word = text.get(bytes.0..bytes.1).unwrap_or_default();
        words.push(Word { text: word.replace('\u{2019}', "'").to_lowercase(), bytes });
    }
    words
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
