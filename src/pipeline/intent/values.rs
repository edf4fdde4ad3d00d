//! Values of slots: what was said, as Home Assistant's intents take it.
//!
//! English. A word list here is a list of names for one value, not of sentences.

use serde_json::{Number, Value};

use super::number;
use super::spelling::{nearest, similarity};

/// Slots that hold a share of 0 to 100.
pub const PERCENT: [&str; 4] = ["brightness", "position", "percentage", "volume_level"];
pub const DURATIONS: [&str; 6] =
    ["hours", "minutes", "seconds", "start_hours", "start_minutes", "start_seconds"];

/// Words that stand for a share, the longest of those that begin alike first.
const LEVELS: [(&str, u8); 22] = [
    ("max", 100),
    ("maximum", 100),
    ("full", 100),
    ("fully", 100),
    ("highest", 100),
    ("brightest", 100),
    ("loudest", 100),
    ("open", 100),
    ("opened", 100),
    ("half", 50),
    ("halfway", 50),
    ("middle", 50),
    ("medium", 50),
    ("low", 25),
    ("high", 75),
    ("min", 1),
    ("minimum", 1),
    ("lowest", 1),
    ("dimmest", 1),
    ("closed", 0),
    ("shut", 0),
    ("silent", 0),
];

/// Colours of light by name, in kelvin.
const KELVIN: [(&[&str], u32); 12] = [
    (&["candle", "light"], 1900),
    (&["candlelight"], 1900),
    (&["warm", "white"], 2700),
    (&["soft", "white"], 2700),
    (&["warm"], 2700),
    (&["neutral", "white"], 3500),
    (&["cold", "white"], 4000),
    (&["cool", "white"], 4000),
    (&["cold"], 4000),
    (&["cool"], 4000),
    (&["day", "light"], 6500),
    (&["daylight"], 6500),
];

const COLORS: [&str; 36] = [
    "white",
    "black",
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "brown",
    "pink",
    "turquoise",
    "cyan",
    "magenta",
    "violet",
    "gold",
    "lavender",
    "teal",
    "lime",
    "indigo",
    "crimson",
    "aqua",
    "maroon",
    "beige",
    "ivory",
    "salmon",
    "coral",
    "navy",
    "olive",
    "silver",
    "grey",
    "gray",
    "khaki",
    "amber",
    "peach",
    "mint",
    "plum",
];

const MEDIA_CLASSES: [(&str, &str); 15] = [
    ("artist", "artist"),
    ("band", "artist"),
    ("singer", "artist"),
    ("album", "album"),
    ("record", "album"),
    ("track", "track"),
    ("song", "track"),
    ("tune", "track"),
    ("playlist", "playlist"),
    ("podcast", "podcast"),
    ("movie", "movie"),
    ("film", "movie"),
    ("show", "tv_show"),
    ("series", "tv_show"),
    ("music", "music"),
];

const STATES: [(&str, &str); 17] = [
    ("on", "on"),
    ("off", "off"),
    ("open", "open"),
    ("opened", "open"),
    ("closed", "closed"),
    ("shut", "closed"),
    ("opening", "opening"),
    ("closing", "closing"),
    ("shutting", "closing"),
    ("locked", "locked"),
    ("unlocked", "unlocked"),
    ("occupied", "on"),
    ("detected", "on"),
    ("triggered", "on"),
    ("empty", "off"),
    ("clear", "off"),
    ("unoccupied", "off"),
];

/// Words that make a step in volume a step down.
const DOWN: [&str; 12] = [
    "down", "lower", "decrease", "reduce", "quieter", "quiet", "softer", "lessen", "less", "drop",
    "loud", "noisy",
];
/// And up: what is near both is not down.
const UP: [&str; 6] = ["raise", "increase", "louder", "higher", "more", "boost"];
/// States that are as they are said; none of them is another one misspelt.
const OTHER_STATES: [&str; 14] = [
    "cleaning",
    "charging",
    "running",
    "playing",
    "paused",
    "heating",
    "cooling",
    "mowing",
    "docked",
    "returning",
    "home",
    "away",
    "wet",
    "hot",
];
/// How alike a word that was tagged with a slot must be to a word for a value of it.
const LIKE_MIN: f32 = 0.65;
/// And a word that was not tagged.
const UNTAGGED_LIKE_MIN: f32 = 0.8;
/// A shorter word is not taken for a misspelt one of [`DOWN`].
const DIRECTION_CHARS_MIN: usize = 4;

/// What the slot `slot` holds if `words` were said for it, in lower case, as `text` of the
/// sentence `sentence`.
pub fn value(slot: &str, words: &[&str], text: &str, sentence: &[&str]) -> Value {
    let said = || Value::String(words.join(" "));
    if PERCENT.contains(&slot) {
        return percent(words).unwrap_or_else(said);
    }
    if DURATIONS.contains(&slot) {
        return match number::parse(words) {
            Some(number) => number_value(number),
            // "an hour", "a minute".
            None if words.iter().any(|word| matches!(*word, "a" | "an")) => Value::from(1),
            None => said(),
        };
    }
    match slot {
        "temperature" => temperature(words).unwrap_or_else(said),
        "volume_step" => volume_step(words, sentence),
        "color" => Value::String(color(words)),
        "state" if words.iter().any(|word| OTHER_STATES.contains(word)) => said(),
        "state" => lookup(&STATES, words).unwrap_or_else(said),
        "media_class" => lookup(&MEDIA_CLASSES, words).unwrap_or_else(said),
        _ => Value::String(text.to_owned()),
    }
}

/// A value for the slot among words that were not tagged, if there is one that can be no other
/// slot's.
pub fn found_in(slot: &str, words: &[&str]) -> Option<Value> {
    let has_number = words.iter().any(|word| number::is_number(word));
    match slot {
        "color" => words.iter().find(|word| COLORS.contains(word)).map(|word| Value::from(*word)),
        "volume_step" => Some(volume_step(words, words)),
        "temperature" if has_number => temperature(words),
        _ if PERCENT.contains(&slot) && has_number => percent(words),
        _ => None,
    }
}

fn percent(words: &[&str]) -> Option<Value> {
    let is_fraction = words.iter().any(|word| matches!(*word, "half" | "quarter" | "quarters"));
    match number::parse(words) {
        // "a quarter", "three quarters".
        Some(share) if is_fraction && share < 1.0 => Some(number_value(share * 100.0)),
        // "one hundred percent" is 100, and "a hundred" too.
        Some(number) if (0.0..=100.0).contains(&number) => Some(number_value(number)),
        _ => entry(&LEVELS, words).map(Value::from),
    }
}

fn temperature(words: &[&str]) -> Option<Value> {
    number::parse(words).map(number_value).or_else(|| kelvin(words))
}

/// The colour of light that `words` name at their end, in kelvin.
pub fn kelvin(words: &[&str]) -> Option<Value> {
    KELVIN.iter().find(|(name, _)| words.ends_with(name)).map(|(_, kelvin)| Value::from(*kelvin))
}

/// The same of misspelt words that are no level of brightness.
pub fn near_kelvin(words: &[&str]) -> Option<Value> {
    // Word by word: "warm white" and "cold white" are half the same.
    let likeness = |name: &[&str]| {
        let likes = name.iter().zip(words).map(|(name, word)| similarity(name, word, LIKE_MIN));
        if name.len() == words.len() { likes.fold(1.0, f32::min) } else { 0.0 }
    };
    if words.iter().any(|word| LEVELS.iter().any(|(name, _)| name == word)) {
        return None;
    }
    let near = KELVIN.iter().map(|(name, kelvin)| (likeness(name), *kelvin));
    let near = near.filter(|(like, _)| *like > 0.0).max_by(|a, b| a.0.total_cmp(&b.0));
    near.map(|(_, kelvin)| Value::from(kelvin))
}

fn volume_step(words: &[&str], sentence: &[&str]) -> Value {
    let is_near = |word: &str| {
        let known = DOWN.iter().map(|name| (*name, true)).chain(UP.map(|name| (name, false)));
        let near = || nearest(word, known, UNTAGGED_LIKE_MIN);
        word.len() >= DIRECTION_CHARS_MIN && near().is_some_and(|(_, is_down)| is_down)
    };
    let is_down = sentence.iter().any(|word| DOWN.contains(word) || is_near(word));
    let has_number = words.iter().any(|word| number::is_number(word));
    match number::parse(words).filter(|_| has_number) {
        Some(step) => number_value(if is_down { -step.abs() } else { step }),
        None => Value::from(if is_down { "down" } else { "up" }),
    }
}

/// The name of a colour that was meant; `dark blue` stays as it is.
fn color(words: &[&str]) -> String {
    let mut named = Vec::with_capacity(words.len());
    for &word in words {
        let near = || nearest(word, COLORS.iter().map(|name| (*name, *name)), LIKE_MIN);
        let near = if is_color(word) { None } else { near() };
        named.push(near.map_or(word, |(_, name)| name));
    }
    named.join(" ")
}

pub fn is_color(word: &str) -> bool {
    COLORS.contains(&word)
}

fn lookup(table: &[(&str, &str)], words: &[&str]) -> Option<Value> {
    entry(table, words).map(Value::from)
}

/// What a table has for the first of `words` that is in it, in the singular or the plural, or else
/// for the one that is most like one of its words.
fn entry<T: Copy>(table: &[(&str, T)], words: &[&str]) -> Option<T> {
    let named = |word: &str| table.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
    let exact = |word: &&str| named(word).or_else(|| named(word.strip_suffix('s')?));
    let near = || {
        let near = words.iter().filter_map(|word| nearest(word, table.iter().copied(), LIKE_MIN));
        near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, value)| value)
    };
    words.iter().find_map(exact).or_else(near)
}

/// A whole number where it is one.
#[expect(clippy::cast_possible_truncation, reason = "numbers here are below 1e9")]
pub fn number_value(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        Value::from(number as i64)
    } else {
        Number::from_f64(number).map_or(Value::Null, Value::Number)
    }
}
