//! How alike two words are written, or sound.
//!
//! Fingers leave out, add, swap and miss letters; ears, and the recognisers that learned from them,
//! write one sound for another. Both are edits; an edit that is hardly heard is half of one.

/// Longer words are compared by nobody: a bound on the work.
const CHARS_MAX: usize = 24;
/// Costs are in halves of an edit. Those of two words of so many letters fit into a byte.
const EDIT: u8 = 2;
const HALF: u8 = 1;

/// Letters that stand for sounds which are taken for one another.
const SOUNDS: [&[u8]; 8] = [b"aeiouy", b"bp", b"fv", b"ckqx", b"csxz", b"gj", b"dt", b"mn"];

/// For each letter, its places among [`SOUNDS`], one bit each.
const SOUNDS_OF: [u8; 26] = {
    let mut sounds_of = [0; 26];
    let mut sound = 0;
    while sound < SOUNDS.len() {
        let mut at = 0;
        while at < SOUNDS[sound].len() {
            sounds_of[(SOUNDS[sound][at] - b'a') as usize] |= 1 << sound;
            at += 1;
        }
        sound += 1;
    }
    sounds_of
};

/// A letter of a word that is compared.
#[derive(Debug, Clone, Copy, Default)]
struct Letter {
    letter: char,
    sounds: u8,
    /// What it costs that it is missing from the other word.
    loose: u8,
}

/// How alike two words in lower case are, 1 the same; 0 if they are less alike than `min`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "words that are compared have few letters, and `min` is a share"
)]
pub fn similarity(a: &str, b: &str, min: f32) -> f32 {
    if a == b {
        return 1.0;
    }
    let (mut letters_a, mut letters_b) =
        ([Letter::default(); CHARS_MAX], [Letter::default(); CHARS_MAX]);
    let (Some(a), Some(b)) = (letters(a, &mut letters_a), letters(b, &mut letters_b)) else {
        return 0.0;
    };
    let longer = a.len().max(b.len());
    let all = f32::from(EDIT) * longer as f32;
    // A little more, so that rounding refuses nothing.
    let limit = ((1.0 - min) * all + 0.01) as u8;
    match distance(a, b, limit) {
        Some(distance) if longer > 0 => 1.0 - f32::from(distance) / all,
        _ => 0.0,
    }
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

/// The letters of a word; none if they are too many.
fn letters<'a>(word: &str, buffer: &'a mut [Letter; CHARS_MAX]) -> Option<&'a [Letter]> {
    let mut count = 0;
    let mut letters = word.chars().peekable();
    let mut last = None;
    while let Some(letter) = letters.next() {
        let place = u32::from(letter).checked_sub(u32::from('a'));
        let sounds = place.and_then(|place| SOUNDS_OF.get(place as usize)).copied();
        // Written twice, or often silent.
        let is_light = last == Some(letter)
            || matches!(letter, 'e' | 'h')
            || letter == 'g' && letters.peek() == Some(&'h');
        let loose = if is_light { HALF } else { EDIT };
        *buffer.get_mut(count)? = Letter { letter, sounds: sounds.unwrap_or(0), loose };
        last = Some(letter);
        count += 1;
    }
    buffer.get(..count)
}

/// The restricted Damerau-Levenshtein distance with costs, in halves of an edit; none above
/// `limit`.
fn distance(a: &[Letter], b: &[Letter], limit: u8) -> Option<u8> {
    const ROW: usize = CHARS_MAX + 1;
    if a.len().abs_diff(b.len()) * usize::from(HALF) > usize::from(limit) {
        return None;
    }
    let (mut before, mut last, mut row) = ([0; ROW], [0; ROW], [0; ROW]);
    let mut least_before = 0;
    for (at, y) in b.iter().enumerate() {
        last[at + 1] = last[at] + y.loose;
    }
    for (i, x) in a.iter().enumerate() {
        row[0] = last[0] + x.loose;
        let mut least = row[0];
        for (j, y) in b.iter().enumerate() {
            let mut cost = last[j] + substitution(x, y);
            cost = cost.min(last[j + 1] + x.loose).min(row[j] + y.loose);
            if i > 0 && j > 0 && a[i - 1].letter == y.letter && b[j - 1].letter == x.letter {
                cost = cost.min(before[j - 1] + EDIT);
            }
            row[j + 1] = cost;
            least = least.min(cost);
        }
        // A swap reaches over one row, and costs an edit.
        if least.min(least_before + EDIT) > limit {
            return None;
        }
        least_before = least;
        (before, last, row) = (last, row, before);
    }
    Some(last[b.len()]).filter(|distance| *distance <= limit)
}

fn substitution(x: &Letter, y: &Letter) -> u8 {
    if x.letter == y.letter {
        0
    } else if x.sounds & y.sounds != 0 {
        HALF
    } else {
        EDIT
    }
}
