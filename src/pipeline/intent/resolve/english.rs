//! What English words say about kinds of devices, and which kinds an intent is for.
//!
//! Nouns, verbs and particles, not sentences. A home that is spoken to in another language is
//! found by its own names alone.

use super::super::spelling::nearest;

/// What a common noun stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub domains: &'static [&'static str],
    /// Empty: any.
    pub device_class: &'static str,
}

const fn kind(domains: &'static [&'static str], device_class: &'static str) -> Kind {
    Kind { domains, device_class }
}

const COVER: &[&str] = &["cover"];
const OPENING: &[&str] = &["cover", "binary_sensor", "lock"];
const GARAGE_DOOR: &[&str] = &["cover", "binary_sensor"];
const PERSON: &[&str] = &["person"];
const SENSOR: &[&str] = &["sensor"];
const BINARY: &[&str] = &["binary_sensor"];
const CLIMATE: &[&str] = &["climate"];
const PLAYER: &[&str] = &["media_player"];

/// Nouns in the singular; those of two words are found first.
const NOUNS: [(&str, Kind); 81] = [
    ("light", kind(&["light"], "")),
    ("lamp", kind(&["light"], "")),
    ("bulb", kind(&["light"], "")),
    ("lighting", kind(&["light"], "")),
    ("switch", kind(&["switch"], "")),
    ("plug", kind(&["switch"], "")),
    ("outlet", kind(&["switch"], "")),
    ("socket", kind(&["switch"], "")),
    ("fan", kind(&["fan"], "")),
    ("ventilator", kind(&["fan"], "")),
    ("blind", kind(COVER, "blind")),
    ("curtain", kind(COVER, "curtain")),
    ("drape", kind(COVER, "curtain")),
    ("shade", kind(COVER, "shade")),
    ("shutter", kind(COVER, "shutter")),
    ("awning", kind(COVER, "awning")),
    ("cover", kind(COVER, "")),
    ("garage door", kind(GARAGE_DOOR, "garage")),
    ("gate", kind(OPENING, "gate")),
    ("window", kind(OPENING, "window")),
    ("door", kind(OPENING, "door")),
    ("door lock", kind(&["lock"], "")),
    ("lock", kind(&["lock"], "")),
    ("deadbolt", kind(&["lock"], "")),
    ("valve", kind(&["valve"], "")),
    ("tap", kind(&["valve"], "")),
    ("faucet", kind(&["valve"], "")),
    ("tv", kind(PLAYER, "tv")),
    ("television", kind(PLAYER, "tv")),
    ("speaker", kind(PLAYER, "speaker")),
    ("media player", kind(PLAYER, "")),
    ("player", kind(PLAYER, "")),
    ("music", kind(PLAYER, "")),
    ("stereo", kind(PLAYER, "")),
    ("thermostat", kind(CLIMATE, "")),
    ("heating", kind(CLIMATE, "")),
    ("heater", kind(CLIMATE, "")),
    ("heat", kind(CLIMATE, "")),
    ("radiator", kind(CLIMATE, "")),
    ("air conditioner", kind(CLIMATE, "")),
    ("air conditioning", kind(CLIMATE, "")),
    ("air con", kind(CLIMATE, "")),
    ("ac", kind(CLIMATE, "")),
    ("vacuum", kind(&["vacuum"], "")),
    ("vacuum cleaner", kind(&["vacuum"], "")),
    ("robot vacuum", kind(&["vacuum"], "")),
    ("hoover", kind(&["vacuum"], "")),
    ("cleaner", kind(&["vacuum"], "")),
    ("robot", kind(&["vacuum", "lawn_mower"], "")),
    ("mower", kind(&["lawn_mower"], "")),
    ("lawn mower", kind(&["lawn_mower"], "")),
    ("lawnmower", kind(&["lawn_mower"], "")),
    ("scene", kind(&["scene"], "")),
    ("script", kind(&["script"], "")),
    ("list", kind(&["todo"], "")),
    ("weather", kind(&["weather"], "")),
    ("forecast", kind(&["weather"], "")),
    ("temperature", kind(SENSOR, "temperature")),
    ("humidity", kind(SENSOR, "humidity")),
    ("battery", kind(SENSOR, "battery")),
    ("power", kind(SENSOR, "power")),
    ("energy", kind(SENSOR, "energy")),
    ("co2", kind(SENSOR, "carbon_dioxide")),
    ("pressure", kind(SENSOR, "pressure")),
    ("illuminance", kind(SENSOR, "illuminance")),
    ("motion", kind(BINARY, "motion")),
    ("movement", kind(BINARY, "motion")),
    ("presence", kind(BINARY, "occupancy")),
    ("smoke", kind(BINARY, "smoke")),
    ("moisture", kind(BINARY, "moisture")),
    ("leak", kind(BINARY, "moisture")),
    ("water leak", kind(BINARY, "moisture")),
    ("who", kind(PERSON, "")),
    ("anyone", kind(PERSON, "")),
    ("anybody", kind(PERSON, "")),
    ("someone", kind(PERSON, "")),
    ("somebody", kind(PERSON, "")),
    ("everyone", kind(PERSON, "")),
    ("everybody", kind(PERSON, "")),
    ("people", kind(PERSON, "")),
    ("sensor", kind(&["sensor", "binary_sensor"], "")),
];

/// What a noun stands for, in the singular or the plural.
pub fn noun(phrase: &str) -> Option<Kind> {
    let singular = phrase.strip_suffix("es").filter(|word| word.ends_with(['h', 'x']));
    let singular = singular.or_else(|| phrase.strip_suffix('s')).unwrap_or(phrase);
    let singular = if phrase == "batteries" { "battery" } else { singular };
    NOUNS.iter().find(|(name, _)| *name == phrase || *name == singular).map(|(_, kind)| *kind)
}

/// What the noun that is nearest to a word stands for, and how near it is, among the nouns that
/// `may_be` it.
pub fn noun_near(word: &str, min: f32, may_be: impl Fn(&str) -> bool) -> Option<(f32, Kind)> {
    let singular = word.strip_suffix('s').unwrap_or(word);
    let near =
        |word: &str| nearest(word, NOUNS.iter().copied().filter(|(name, _)| may_be(name)), min);
    let whole = near(word);
    let singular = if singular == word { None } else { near(singular) };
    if singular.map(|(like, _)| like) > whole.map(|(like, _)| like) { singular } else { whole }
}

/// Words for one thing, each word once. The number is how alike they are.
const SYNONYMS: [(&[&str], f32); 16] = [
    (&["tv", "television", "telly"], 0.95),
    (&["light", "lamp", "bulb", "lighting"], 0.7),
    (&["curtain", "drape", "blind", "shade", "shutter"], 0.65),
    (&["vacuum", "hoover", "robovac", "roomba", "cleaner"], 0.7),
    (&["thermostat", "heating", "heater", "radiator", "climate"], 0.65),
    (&["ac", "aircon", "conditioner", "conditioning"], 0.75),
    (&["fan", "ventilator", "ventilation"], 0.8),
    (&["fridge", "refrigerator"], 0.95),
    (&["sofa", "couch"], 0.95),
    (&["plug", "outlet", "socket", "switch"], 0.65),
    (&["kid", "children", "child"], 0.8),
    (&["mom", "mum", "mother"], 0.9),
    (&["dad", "father"], 0.9),
    (&["tap", "faucet", "valve"], 0.7),
    (&["speaker", "stereo", "soundbar"], 0.65),
    (&["todo", "task", "chore"], 0.8),
];

/// Which of the sets of synonyms a word is in.
pub fn synonyms(word: &str) -> Option<usize> {
    SYNONYMS.iter().position(|(words, _)| words.contains(&word))
}

/// How alike in meaning the words of a set of synonyms are.
pub fn synonymy(set: usize) -> f32 {
    SYNONYMS.get(set).map_or(0.0, |(_, similarity)| *similarity)
}

/// Words that name nothing by themselves.
const STOP_WORDS: [&str; 95] = [
    "a", "an", "the", "my", "our", "your", "his", "her", "their", "this", "that", "these", "those",
    "it", "its", "i", "me", "we", "us", "you", "he", "she", "they", "them", "in", "on", "off",
    "at", "of", "to", "from", "for", "by", "with", "and", "or", "not", "no", "is", "are", "was",
    "be", "am", "do", "does", "did", "has", "have", "had", "can", "could", "would", "will",
    "should", "may", "please", "hey", "ok", "okay", "thanks", "thank", "now", "there", "here",
    "what", "which", "who", "where", "when", "how", "why", "much", "many", "any", "some", "want",
    "need", "like", "let", "just", "turn", "switch", "set", "make", "put", "get", "go", "give",
    "tell", "s", "t", "up", "down", "if", "whether",
];

pub fn is_stop_word(word: &str) -> bool {
    STOP_WORDS.contains(&word) || is_all(word) || is_verb(word)
}

/// Words that ask for more than one.
pub fn is_all(word: &str) -> bool {
    let words = ["all", "every", "each", "both", "entire", "whole", "any", "some", "which", "many"];
    words.contains(&word) || is_everything(word)
}

/// Words for a place that do not say which.
pub fn is_room(word: &str) -> bool {
    ["room", "floor", "area"].contains(&word)
}

/// Words for all that there is, as a place.
pub fn is_home(word: &str) -> bool {
    ["home", "house", "apartment", "everywhere"].contains(&word)
}

/// Words for every device, whatever it is.
pub fn is_everything(word: &str) -> bool {
    ["everything", "anything", "devices"].contains(&word)
}

const OPENING_VERBS: [&str; 12] = [
    "open", "close", "shut", "raise", "lower", "lift", "opened", "closed", "opening", "closing",
    "unroll", "retract",
];
const LOCKING_VERBS: [&str; 8] =
    ["lock", "unlock", "bolt", "unbolt", "locked", "unlocked", "locking", "unlocking"];
const RUNNING_VERBS: [&str; 8] =
    ["run", "activate", "execute", "trigger", "launch", "press", "push", "play"];
const SWITCHING_WORDS: [&str; 6] = ["on", "off", "enable", "disable", "toggle", "kill"];

fn is_verb(word: &str) -> bool {
    let others = ["start", "stop", "dim", "brighten", "turning", "switching"];
    [&OPENING_VERBS[..], &LOCKING_VERBS, &RUNNING_VERBS, &SWITCHING_WORDS, &others]
        .iter()
        .any(|words| words.contains(&word))
}

/// What is done to a device, as the words of the sentence say it; an intent alone says less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Open,
    Lock,
    Run,
    Switch,
    Unknown,
}

impl Act {
    /// `words` are those of the sentence that are no names and no values.
    pub fn of(words: &[&str]) -> Self {
        let has = |list: &[&str]| words.iter().any(|word| list.contains(word));
        if has(&LOCKING_VERBS) {
            Self::Lock
        } else if has(&OPENING_VERBS) {
            Self::Open
        } else if has(&RUNNING_VERBS) {
            Self::Run
        } else if has(&SWITCHING_WORDS) {
            Self::Switch
        } else {
            Self::Unknown
        }
    }

    /// How well a domain suits the act, 0 to 1.
    pub fn suits(self, domain: &str) -> f32 {
        match (self, domain) {
            (Self::Open, "cover" | "valve" | "binary_sensor")
            | (Self::Lock, "lock")
            | (Self::Run, "script" | "scene" | "button" | "input_button" | "automation") => 1.0,
            (Self::Open, "lock") => 0.85,
            (Self::Open | Self::Lock, _) => 0.6,
            (Self::Switch, "cover" | "valve" | "lock" | "binary_sensor" | "sensor") => 0.8,
            (Self::Run | Self::Unknown, "sensor" | "binary_sensor") => 0.95,
            _ => 0.98,
        }
    }
}

/// What an intent is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objects {
    /// Nothing of the home, or what has no entity (timers); areas may be named.
    None,
    /// Whatever has an entity.
    Any,
    Of(&'static [&'static str]),
}

const SWITCHABLE: &[&str] = &[
    "light",
    "switch",
    "fan",
    "media_player",
    "input_boolean",
    "cover",
    "lock",
    "valve",
    "climate",
    "script",
    "scene",
    "button",
    "input_button",
    "humidifier",
    "water_heater",
    "siren",
    "vacuum",
    "lawn_mower",
    "automation",
    "group",
    "remote",
];

/// What `everything` is, where something is switched.
pub const SWITCHED_TOGETHER: &[&str] =
    &["light", "switch", "fan", "media_player", "input_boolean", "climate", "humidifier"];

/// The domains of an intent's objects, in Home Assistant's vocabulary.
pub fn objects(intent: &str) -> Objects {
    match intent {
        "HassTurnOn" | "HassTurnOff" | "HassToggle" => Objects::Of(SWITCHABLE),
        "HassLightSet" => Objects::Of(&["light"]),
        "HassSetPosition" => Objects::Of(&["cover", "valve"]),
        "HassFanSetSpeed" => Objects::Of(&["fan"]),
        "HassGetWeather" => Objects::Of(&["weather"]),
        "HassGetState" => Objects::Any,
        _ => {
            let prefixes: [(&str, &[&str]); 8] = [
                ("HassClimate", &["climate", "water_heater"]),
                ("HassVacuum", &["vacuum", "lawn_mower"]),
                ("HassLawnMower", &["lawn_mower", "vacuum"]),
                ("HassMedia", &["media_player"]),
                ("HassSetVolume", &["media_player"]),
                ("HassList", &["todo"]),
                ("HassShoppingList", &["todo"]),
                ("HassHumidifier", &["humidifier"]),
            ];
            let found = prefixes.iter().find(|(prefix, _)| intent.starts_with(prefix));
            found.map_or(Objects::None, |(_, domains)| Objects::Of(domains))
        }
    }
}

/// The intent that is meant if `intent` turned out to be about a device of `domain`: vacuums and
/// mowers are started and sent home in the same words, and as often switched on and off.
pub fn intent_for(intent: &str, domain: &str) -> Option<&'static str> {
    let starts = ["HassTurnOn", "HassVacuumStart", "HassLawnMowerStartMowing"];
    let ends = ["HassTurnOff", "HassVacuumReturnToBase", "HassLawnMowerDock"];
    let meant = match domain {
        "vacuum" if starts.contains(&intent) => "HassVacuumStart",
        "vacuum" if ends.contains(&intent) => "HassVacuumReturnToBase",
        "lawn_mower" if starts.contains(&intent) => "HassLawnMowerStartMowing",
        "lawn_mower" if ends.contains(&intent) => "HassLawnMowerDock",
        _ => return None,
    };
    (meant != intent).then_some(meant)
}

/// Whether devices of these domains move about, so that the area that is named is where they
/// work, not where they stand.
pub fn is_mobile(domain: &str) -> bool {
    matches!(domain, "vacuum" | "lawn_mower")
}
