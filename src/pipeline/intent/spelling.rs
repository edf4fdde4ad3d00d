//! How alike two words are written, or sound.
//!
//! Fingers leave out, add, swap and miss letters; ears, and the recognisers that learned from them,
//! write one sound for another. Both are edits; an edit that is hardly heard is half of one.

/// Longer words are compared by nobody: a bound on the work.
const CHARS_MAX: usize = 24;
/// Costs are in halves of an edit.
const EDIT: u32 = 2;
const HALF: u32 = 1;

/// Letters that stand for sounds which are taken for one another.
const SOUNDS: [&str; 8] = ["aeiouy", "bp", "fv", "ckqx", "csxz", "gj", "dt", "mn"];

/// How alike two words in lower case are: 1 the same, 0 nothing alike, or less than `min`.
pub fn similarity(a: &str, b: &str, min: f32) -> f32 {
    let (mut chars_a, mut chars_b) = (['\0'; CHARS_MAX], ['\0'; CHARS_MAX]);
    let (Some(a), Some(b)) = (letters(a, &mut chars_a), letters(b, &mut chars_b)) else {
        return f32::from(u8::from(a == b));
    };
    if a.is_empty() || b.is_empty() {
        return 0.0;
    }
    let longer = a.len().max(b.len()) as f32;
    let similarity = 1.0 - distance(a, b) as f32 / EDIT as f32 / longer;
    if similarity >= min { similarity } else { 0.0 }
}

/// The key nearest to a word, and how near, among keys that are at least `min` alike.
pub fn nearest<'a, T>(
    word: &str,
    entries: impl Iterator<Item = (&'a str, T)>,
    min: f32,
) -> Option<(f32, T)> {
    let mut best: Option<(f32, T)> = None;
    for (key, value) in entries {
        let like = similarity(word, key, min);
        if like > 0.0 && best.as_ref().is_none_or(|(best, _)| like > *best) {
            best = Some((like, value));
        }
    }
    best
}

fn letters<'a>(word: &str, buffer: &'a mut [char; CHARS_MAX]) -> Option<&'a [char]> {
    let mut count = 0;
    for letter in word.chars() {
        *buffer.get_mut(count)? = letter;
        count += 1;
    }
    buffer.get(..count)
}

/// The restricted Damerau-Levenshtein distance with costs, in halves of an edit.
fn distance(a: &[char], b: &[char]) -> u32 {
    const ROW: usize = CHARS_MAX + 1;
    let (mut before, mut last, mut row) = ([0; ROW], [0; ROW], [0; ROW]);
    for (at, &y) in b.iter().enumerate() {
        last[at + 1] = last[at] + loose(b, at, y);
    }
    for (i, &x) in a.iter().enumerate() {
        let drop = loose(a, i, x);
        row[0] = last[0] + drop;
        for (j, &y) in b.iter().enumerate() {
            let mut cost = last[j] + substitution(x, y);
            cost = cost.min(last[j + 1] + drop).min(row[j] + loose(b, j, y));
            if i > 0 && j > 0 && x != y && a[i - 1] == y && b[j - 1] == x {
                cost = cost.min(before[j - 1] + EDIT);
            }
            row[j + 1] = cost;
        }
        (before, last) = (last, row);
    }
    last[b.len()]
}

/// What it costs that the letter `letter` of `word` is missing from the other: little if it is
/// there twice or often silent.
fn loose(word: &[char], at: usize, letter: char) -> u32 {
    let is_double = at > 0 && word.get(at - 1) == Some(&letter);
    let is_silent = match letter {
        'e' | 'h' => true,
        'g' => word.get(at + 1) == Some(&'h'),
        _ => false,
    };
    if is_double || is_silent { HALF } else { EDIT }
}

fn substitution(x: char, y: char) -> u32 {
    if x == y {
        0
    } else if SOUNDS.iter().any(|sound| sound.contains(x) && sound.contains(y)) {
        HALF
    } else {
        EDIT
    }
}
