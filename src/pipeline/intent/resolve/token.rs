//! Words as they are compared: singular, numbers as digits, misspellings at a distance.

use super::super::number::word_as_digits;
use super::super::spelling;
use super::english;

/// A word of a name or of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    /// Without the ending of a plural.
    stem: String,
    chars: usize,
    /// Which sounds it has, one bit each: a bound on how much two words can have in common.
    sounds: u32,
    /// Its set of synonyms.
    synonyms: Option<usize>,
}

/// Of two words whose stems are equal.
const STEM_SIMILARITY: f32 = 0.97;
/// Of two words one of which begins with the other.
const PREFIX_SIMILARITY: f32 = 0.8;
const PREFIX_CHARS_MIN: usize = 4;
/// Of a shorter word and one that may be made of it and another: "bed" and "bedroom".
const COMPOUND_SIMILARITY: f32 = 0.65;
/// Short words have one error at most, and if they have three letters, none too few or too many:
/// "son" is no "sonos".
const ONE_OF_THREE_MIN: f32 = 0.66;
const ONE_OF_FOUR_MIN: f32 = 0.75;
const LETTER_MORE_MIN: f32 = 0.8;
/// A misspelt word has at most this part of its characters wrong.
const ERRORS_PART_MAX: f32 = 0.4;
/// Shorter words are not misspelt: too many others are near them.
const MISSPELT_CHARS_MIN: usize = 3;
/// People misspell the first letter least of all.
const FIRST_LETTER_PENALTY: f32 = 0.08;

impl Token {
    /// `word` is in lower case.
    pub fn new(word: &str) -> Self {
        let word = word.strip_suffix("'s").unwrap_or(word);
        let text = word_as_digits(word).unwrap_or_else(|| word.replace('\'', ""));
        let stem = stem(&text).to_owned();
        let sounds = stem.chars().fold(0, |sounds, c| sounds | sound_bit(c));
        let synonyms = english::synonyms(&stem);
        Self { chars: stem.chars().count(), text, stem, sounds, synonyms }
    }

    /// Two words written as one.
    pub fn joined(first: &Self, second: &Self) -> Self {
        Self::new(&format!("{}{}", first.text, second.text))
    }

    pub fn is_plural(&self) -> bool {
        self.text.len() > self.stem.len()
    }
}

/// Consonants by what they are mistaken for; vowels, and the letters of `gh`, come and go.
fn sound_bit(c: char) -> u32 {
    match c {
        'a' | 'e' | 'i' | 'o' | 'u' | 'y' | 'g' | 'h' | 'j' => 0,
        'b' | 'p' => 1,
        'f' | 'v' => 1 << 1,
        'c' | 'k' | 'q' | 'x' | 's' | 'z' => 1 << 2,
        'd' | 't' => 1 << 3,
        'm' | 'n' => 1 << 4,
        'l' => 1 << 5,
        'r' => 1 << 6,
        'w' => 1 << 7,
        '0'..='9' => DIGIT,
        _ => 1 << 9,
    }
}

const DIGIT: u32 = 1 << 8;

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

/// How alike two words are: 1 the same, 0 nothing to do with each other, or less than `min`.
pub fn similarity(a: &Token, b: &Token, min: f32) -> f32 {
    if a.text == b.text {
        return 1.0;
    }
    if a.stem == b.stem {
        return STEM_SIMILARITY;
    }
    let synonyms = a.synonyms.filter(|_| a.synonyms == b.synonyms);
    let like = spelling(a, b, min).max(synonyms.map_or(0.0, english::synonymy));
    if like >= min { like } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "lengths of words are small")]
fn spelling(a: &Token, b: &Token, min: f32) -> f32 {
    let (short, long) = if a.chars <= b.chars { (a, b) } else { (b, a) };
    if short.chars < MISSPELT_CHARS_MIN || (a.sounds | b.sounds) & DIGIT != 0 {
        // "fna" is a misspelling; "tv" for "tb" is not, and numbers never are.
        return 0.0;
    }
    let mut best: f32 = 0.0;
    if long.stem.starts_with(&short.stem) {
        let is_compound = long.chars >= 2 * short.chars;
        best = match short.chars {
            PREFIX_CHARS_MIN.. => PREFIX_SIMILARITY,
            _ if is_compound => COMPOUND_SIMILARITY,
            _ => 0.0,
        };
    }
    let own_min = match (short.chars, long.chars) {
        (..4, 4..) => LETTER_MORE_MIN,
        (..4, _) => ONE_OF_THREE_MIN,
        (4, 4) => ONE_OF_FOUR_MIN,
        _ => 1.0 - ERRORS_PART_MAX,
    };
    let min = own_min.max(min);
    // An error takes at most one sound from either.
    let errors_max = long.chars as f32 * (1.0 - min);
    let [missing, other] = [a.sounds & !b.sounds, b.sounds & !a.sounds].map(u32::count_ones);
    if missing.max(other) as f32 > errors_max {
        return best;
    }
    let mut spelt = spelling::similarity(&a.stem, &b.stem, min);
    // An `s` at the end may be what is left of the word, not its plural.
    if a.is_plural() != b.is_plural() {
        spelt = spelt.max(spelling::similarity(&a.text, &b.text, min));
    }
    if a.stem.chars().next() != b.stem.chars().next() {
        spelt -= FIRST_LETTER_PENALTY;
    }
    best.max(spelt)
}
