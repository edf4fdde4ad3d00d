//! Slots whose values stand in the sentence itself: numbers, durations, colours, states, items.
//!
//! A tag says where a value is; what it is of, the intent says better. Names, areas and kinds of
//! devices are found among the home's, in [`resolve`](super::resolve).

use serde_json::{Map, Value};

use super::Sentence;
use super::decode::{Reading, Span};
use super::spelling::{nearest, similarity};
use super::{number, values};

/// What the words of a span are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Part of the name of a device, a person, a list, a timer.
    Name,
    /// An area or a floor.
    Place,
    /// A word for a kind of devices.
    Kind,
    /// A number, a colour, an item: nothing that has a name in the home.
    Value,
    /// Nothing.
    Free,
}

impl Role {
    /// Of the words of a slot of an intent.
    pub fn of(slot: &str, intent: &str) -> Self {
        match slot {
            "name" => Self::Name,
            "area" | "floor" => Self::Place,
            "domain" | "device_class" => Self::Kind,
            _ if meant(slot, intent).is_some() => Self::Value,
            // Tagged by mistake. Words of the speaker's own may then be a name.
            _ if is_free_text(slot) => Self::Name,
            _ => Self::Free,
        }
    }
}

/// Slots whose values are words of the speaker's own.
fn is_free_text(slot: &str) -> bool {
    matches!(slot, "item" | "message" | "search_query" | "conversation_command")
}

/// Whether an intent has this slot. What a model tags with a slot of other intents is a mistake.
pub fn has_slot(intent: &str, slot: &str) -> bool {
    let is = |parts: &[&str]| parts.iter().any(|part| intent.contains(part));
    match slot {
        "name" => !is(&["ShoppingList"]),
        "item" => is(&["List"]),
        "message" => is(&["Broadcast"]),
        "search_query" | "media_class" => is(&["Media"]),
        "conversation_command" => is(&["Timer"]),
        "volume_level" => intent == "HassSetVolume",
        "volume_step" => intent == "HassSetVolumeRelative",
        "brightness" | "color" => is(&["Light"]),
        "temperature" => is(&["Light", "Climate"]),
        "percentage" => is(&["Fan", "Humidifier"]),
        "position" => is(&["Position"]),
        "fan_mode" => is(&["Fan", "Climate"]),
        "state" => is(&["GetState"]),
        _ if values::DURATIONS.contains(&slot) => is(&["Timer"]),
        _ => true,
    }
}

/// What a number is of in an intent that takes one.
fn number_slot(intent: &str) -> Option<&'static str> {
    Some(match intent {
        "HassLightSet" => "brightness",
        "HassSetPosition" => "position",
        "HassFanSetSpeed" => "percentage",
        "HassSetVolume" => "volume_level",
        "HassSetVolumeRelative" => "volume_step",
        "HassClimateSetTemperature" => "temperature",
        _ => return None,
    })
}

/// Whether a slot holds a number.
fn is_number(slot: &str) -> bool {
    values::PERCENT.contains(&slot)
        || values::DURATIONS.contains(&slot)
        || matches!(slot, "temperature" | "volume_step")
}

/// The slot that is meant by a tag; `None` if the intent has no use for it.
fn meant<'a>(slot: &'a str, intent: &str) -> Option<&'a str> {
    let is_number = is_number(slot) && !values::DURATIONS.contains(&slot);
    match number_slot(intent) {
        Some(meant) if is_number => Some(meant),
        _ => has_slot(intent, slot).then_some(slot),
    }
}

/// The values of a reading.
pub fn slots(sentence: &Sentence, reading: &Reading) -> Map<String, Value> {
    let words: Vec<&str> = sentence.words.iter().map(|word| word.text.as_str()).collect();
    let intent = reading.intent.as_str();
    let mut found = Map::new();
    let mut free = vec![true; words.len()];
    for span in &joined(&reading.spans) {
        let (from, to) = (span.words.0, span.words.1.min(words.len()));
        let role = Role::of(&span.slot, intent);
        if role != Role::Free {
            free.iter_mut().take(to).skip(from).for_each(|is_free| *is_free = false);
        }
        let said = words.get(from..to).unwrap_or_default();
        let Some(slot) = meant(&span.slot, intent) else { continue };
        if role != Role::Value {
            continue;
        }
        let (slot, value) = if values::DURATIONS.contains(&slot) {
            duration(slot, &words, (from, to), intent, &found)
        } else if intent == "HassLightSet" {
            light(slot, said)
        } else {
            let text = span.text(&sentence.text, &sentence.words);
            (slot.to_owned(), values::value(slot, said, text, &words))
        };
        if found.get(&slot).is_none_or(|said| replaces(&slot, &value, said)) {
            found.insert(slot, value);
        }
    }
    let free = words.iter().zip(free).filter_map(|(word, is_free)| is_free.then_some(*word));
    fill(&free.collect::<Vec<_>>(), intent, &mut found);
    found
}

/// Whether the second value for a slot is the one that was meant. Of two numbers, it is: what a
/// thing is set to is said last, and a "to" is often heard as two. "Too loud by ten percent" is
/// ten percent. Of words, it is the one that is known.
fn replaces(slot: &str, value: &Value, said: &Value) -> bool {
    let is_color = |value: &Value| value.as_str().is_some_and(values::is_color);
    match slot {
        "color" => is_color(value) && !is_color(said),
        // "one hour and a half" has minutes of its own.
        _ if values::DURATIONS.contains(&slot) => said.is_string() && value.is_number(),
        _ => value.is_number(),
    }
}

/// Words of the speaker's own are one value, whatever the tags leave out between them; words of a
/// number are, where they stand side by side.
fn joined(spans: &[Span]) -> Vec<Span> {
    let mut joined: Vec<Span> = Vec::new();
    let is_one = |last: &Span, span: &Span| {
        let is_number = is_number(&span.slot) && last.words.1 == span.words.0;
        last.slot == span.slot && (is_number || is_free_text(&span.slot))
    };
    for span in spans {
        match joined.last_mut() {
            Some(last) if is_one(last, span) => {
                last.words.1 = span.words.1;
            }
            _ => joined.push(span.clone()),
        }
    }
    joined
}

/// Looks among untagged words for a value without which the intent does nothing.
fn fill(free: &[&str], intent: &str, found: &mut Map<String, Value>) {
    let Some(slot) = number_slot(intent) else { return };
    let slots: &[&str] = match intent {
        "HassLightSet" if found.is_empty() => &["color", "brightness"],
        "HassLightSet" => &[],
        _ if found.contains_key(slot) => &[],
        _ => &[slot],
    };
    let first = slots.iter().find_map(|&slot| Some((slot, values::found_in(slot, free)?)));
    if let Some((slot, value)) = first {
        found.insert(slot.to_owned(), value);
    }
}

/// Kelvin from here on are no brightness.
const KELVIN_MIN: f64 = 1000.0;

/// A value for a light: a colour, a brightness, or a temperature by its name or in kelvin.
fn light(slot: &str, said: &[&str]) -> (String, Value) {
    let number = number::parse(said);
    let may_be_near = number.is_none() && slot != "color";
    let near = || if may_be_near { values::near_kelvin(said) } else { None };
    let kelvin = values::kelvin(said).or_else(near);
    let is_kelvin = number.is_some_and(|number| number >= KELVIN_MIN);
    match kelvin {
        Some(kelvin) => ("temperature".to_owned(), kelvin),
        None if is_kelvin => {
            ("temperature".to_owned(), values::value("temperature", said, "", said))
        }
        None => (slot.to_owned(), values::value(slot, said, &said.join(" "), said)),
    }
}

/// Words of a unit are looked for among this many after a number.
const UNIT_WORDS: usize = 4;
/// A shorter word that is no unit is a misspelt one only right after the number.
const UNIT_CHARS_MIN: usize = 5;

/// Hours, minutes or seconds: of a change, or of the timer that is meant. The words after the
/// number say which unit, and the words around it which of the two.
fn duration(
    slot: &str,
    words: &[&str],
    (from, to): (usize, usize),
    intent: &str,
    found: &Map<String, Value>,
) -> (String, Value) {
    let rest = words.get(to..).unwrap_or_default();
    let before = words.get(from.saturating_sub(2)..from).unwrap_or_default();
    let is_change = matches!(intent, "HassIncreaseTimer" | "HassDecreaseTimer");
    // "add a minute to my 5 minute timer", "... to the timer for 5 minutes".
    let is_timers_own = rest.get(1) == Some(&"timer") || before == ["timer", "for"];
    let is_start = slot.starts_with("start_")
        || is_change && is_timers_own
        || !is_change && intent != "HassStartTimer";
    let prefix = if is_start { "start_" } else { "" };
    let tagged = slot.strip_prefix("start_").unwrap_or(slot);
    let own = rest
        .iter()
        .take(UNIT_WORDS)
        .take_while(|word| **word == "half" || !number::is_number(word));
    let named = own.enumerate().find_map(|(at, word)| unit(word, at == 0));
    let unit = named.unwrap_or(tagged);
    let said = words.get(from..to).unwrap_or_default();
    let is_near_half = |word: &&str| similarity("half", word, UNIT_LIKE_MIN) > 0.0;
    let is_half = match number::parse(said) {
        Some(number) => said.first() == Some(&"half") || number == 0.5,
        None => said.iter().any(is_near_half),
    };
    let is_said = found.contains_key(&format!("{prefix}{unit}"));
    // "half an hour" is 30 of the next smaller unit, and so is the half of "one and a half hours";
    // "1/2" is two words, and its 2 may be the only one that is tagged.
    if is_half || said == ["1", "2"] || said == ["2"] && before.last() == Some(&"1") && is_said {
        let smaller = match named {
            Some("hours") => "minutes",
            Some("minutes") => "seconds",
            _ => tagged,
        };
        return (format!("{prefix}{smaller}"), Value::from(30));
    }
    (format!("{prefix}{unit}"), values::value(unit, said, &said.join(" "), words))
}

/// How alike a word must be to one for a unit.
const UNIT_LIKE_MIN: f32 = 0.7;

/// The unit that a word is for. Right after a number, a misspelt one is expected.
fn unit(word: &str, is_expected: bool) -> Option<&'static str> {
    const UNITS: [(&str, &str); 9] = [
        ("hour", "hours"),
        ("hours", "hours"),
        ("minute", "minutes"),
        ("minutes", "minutes"),
        ("min", "minutes"),
        ("mins", "minutes"),
        ("second", "seconds"),
        ("seconds", "seconds"),
        ("sec", "seconds"),
    ];
    let exact = UNITS.iter().find(|(name, _)| *name == word).map(|(_, unit)| *unit);
    let is_long = word.len() >= UNIT_CHARS_MIN;
    let near = || nearest(word, UNITS.iter().copied(), UNIT_LIKE_MIN).map(|(_, unit)| unit);
    exact.or_else(|| if is_expected || is_long { near() } else { None })
}
