//! What is spoken of by kind and place: "the lights in the kitchen", "everything upstairs".

use serde_json::{Map, Value};

use super::english::{self, Kind, Objects};
use super::index::{Entry, Index, Of, Thing};
use super::mention::KNOWN_MIN;
use super::score::{WORDS_MAX, Words, fit};
use super::{GROUP_SCORE_MIN, MENTION_PART, Query};
use crate::pipeline::intent::slots::Role;

/// The areas and floors of a sentence.
#[derive(Debug, Default)]
pub struct Places {
    found: Vec<(Of, Words)>,
}

/// Of its name, this part must have been said where the model tagged a place.
const TAGGED_MIN: f32 = 0.5;
/// And this one where it did not.
const UNTAGGED_MIN: f32 = 0.84;
const PLACES_MAX: usize = 8;

impl Places {
    /// Finds them: among the words that are tagged so, or else among all.
    pub fn new(index: &Index, query: &Query<'_>) -> Self {
        let tagged = query.spoken.with(|_, role| role == Role::Place);
        let mut found = Self::among(index, query, tagged, TAGGED_MIN);
        if !found.found.is_empty() {
            // A word beside a name that was found, and that no name has, is a part of it misheard.
            let unknown = query.spoken.with(|at, _| query.likeness.best(at).0 < KNOWN_MIN);
            for (_, words) in &mut found.found {
                *words = words.or(query.spoken.place_of(*words).and(unknown));
            }
            return found;
        }
        let words = query.mention.words.without(query.spoken.compounds);
        Self::among(index, query, words, UNTAGGED_MIN)
    }

    fn among(index: &Index, query: &Query<'_>, words: Words, coverage_min: f32) -> Self {
        let mut places = Self::default();
        let mut left = words;
        while places.found.len() < PLACES_MAX && !left.is_empty() {
            let mut best: Option<(&Entry, Words, f32)> = None;
            for entry in index.entries.iter().filter(|entry| !matches!(entry.of, Of::Thing(_))) {
                let fit = fit(index, entry, query.likeness, left);
                // Of two names that were said whole, the longer: "guest bedroom", not "bedroom".
                let score = fit.coverage + 0.1 * count(fit.words);
                let is_better = best.as_ref().is_none_or(|(.., best)| score > *best);
                if fit.coverage >= coverage_min && is_better {
                    best = Some((entry, fit.words, score));
                }
            }
            let Some((entry, words, _)) = best.filter(|(_, words, _)| !words.is_empty()) else {
                break;
            };
            // What else names it, though it is tagged as something else.
            let words = words.or(fit(index, entry, query.likeness, query.mention.words).words);
            let of = entry.of;
            left = left.without(words);
            if !places.found.iter().any(|(other, _)| *other == of) {
                places.found.push((of, words));
            }
        }
        places
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub fn all(&self) -> Vec<Of> {
        self.found.iter().map(|(of, _)| *of).collect()
    }

    /// The words that name them.
    pub fn words(&self) -> Words {
        self.found.iter().fold(Words::default(), |all, (_, words)| all.or(*words))
    }

    /// Those that the words `name` do not already say, or that were tagged as places.
    pub fn outside(&self, name: Words, query: &Query<'_>) -> Vec<Of> {
        let tagged = query.spoken.with(|_, role| role == Role::Place);
        let is_outside =
            |words: Words| !words.without(name).is_empty() || !words.and(tagged).is_empty();
        self.found.iter().filter(|(_, words)| is_outside(*words)).map(|(of, _)| *of).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "at most 64")]
fn count(words: Words) -> f32 {
    words.iter().count() as f32
}

/// Devices of one kind that are meant together.
#[derive(Debug)]
pub struct Group {
    pub things: Vec<usize>,
    pub score: f32,
    /// What it must score to be taken.
    pub score_min: f32,
    /// Whether all of them are meant, if there are several.
    pub is_all: bool,
    pub slots: Map<String, Value>,
}

/// Of a kind of which there is nothing where it was looked for.
const NONE_THERE: f32 = 0.9;
/// How much less likely several devices are, if one was spoken of.
const SINGULAR_PENALTY: f32 = 0.06;

/// The kind that is spoken of, and how.
pub struct Head {
    kind: Option<Kind>,
    words: Words,
    /// The word for the kind, if it is a plural.
    pub plural: Option<usize>,
    is_tagged: bool,
    is_everything: bool,
    is_all: bool,
}

impl Head {
    pub fn new(query: &Query<'_>) -> Self {
        let Query { mention, spoken, .. } = query;
        let words = spoken.with(|_, _| true);
        let is_all = words.iter().any(|at| english::is_all(spoken.word(at)));
        let is_everything = words.iter().any(|at| english::is_everything(spoken.word(at)));
        let noun = |at: usize| {
            let kind = spoken.nouns.get(at).copied().flatten();
            kind.filter(|kind| query.takes_any(kind.domains))
        };
        // The tagged kind; the last noun of a name ("garage door light"); any noun.
        let kinds = spoken.with(|at, role| role == Role::Kind && noun(at).is_some());
        let last = mention.named.iter().filter(|&at| noun(at).is_some()).last();
        let other = mention.words.iter().find(|&at| noun(at).is_some());
        let is_tagged = !kinds.is_empty();
        let head = kinds.iter().last().or(last).or(other);
        let kind = head.and_then(noun);
        let mut words = Words::default();
        for at in mention.words.iter().filter(|&at| kind.is_some() && noun(at) == kind) {
            words.insert(at);
        }
        let plural = |at: usize| spoken.tokens.get(at).is_some_and(super::token::Token::is_plural);
        let plural = head.filter(|&at| plural(at));
        Self { kind, words, plural, is_tagged, is_everything, is_all }
    }

    /// Whether the model tagged it, or the sentence does without.
    pub fn is_said(&self) -> bool {
        self.is_tagged || self.kind.is_none()
    }
}

/// The group that a mention may be of.
pub fn group(
    index: &Index,
    query: &Query<'_>,
    places: &Places,
    head: &Head,
    weights: &[f32; WORDS_MAX],
) -> Option<Group> {
    let domains = domains(query, head, places)?;
    let in_places = places.all();
    let select = |is_here: &dyn Fn(&Thing) -> bool, class: &dyn Fn(&Thing) -> bool| {
        let is_of = |thing: &Thing| {
            domains.contains(&thing.domain.as_str()) && class(thing) && is_here(thing)
        };
        let found = index.things.iter().enumerate().filter(|(_, thing)| is_of(thing));
        found.map(|(at, _)| at).collect::<Vec<usize>>()
    };
    let class = head.kind.map_or("", |kind| kind.device_class);
    let same_class = |thing: &Thing| class.is_empty() || thing.device_class == class;
    let no_class = |thing: &Thing| thing.device_class.is_empty();
    // Blinds, shades and shutters are one thing to many; a temperature is no humidity.
    let any_class =
        |thing: &Thing| matches!(thing.domain.as_str(), "cover" | "media_player" | "lock");
    let here = |thing: &Thing| in_places.is_empty() || index.is_in(thing.area, &in_places);
    let anywhere = |thing: &Thing| english::is_mobile(&thing.domain);
    let mut things = select(&here, &same_class);
    for other in [&no_class as &dyn Fn(&Thing) -> bool, &any_class] {
        if things.is_empty() && !class.is_empty() {
            things = select(&here, other);
        }
    }
    if things.is_empty() {
        things = select(&anywhere, &same_class);
    }
    let suits =
        |&at: &usize| index.things.get(at).map_or(0.0, |thing| query.act.suits(&thing.domain));
    let mut best = things.iter().map(suits).fold(0.0, f32::max);
    things.retain(|at| suits(at) >= best);
    if things.is_empty() {
        // There is none here; that they were meant is still to be said.
        let is_switched = query.act.suits("light") >= NONE_THERE;
        best = match head.kind {
            Some(_) => NONE_THERE,
            None if is_switched => 0.0,
            None => return None,
        };
    }
    let place_words = places.words();
    let like = |at: usize| f32::from(u8::from(place_words.has(at) || head.words.has(at)));
    let explained = query.mention.explained(weights, like);
    let is_many = head.plural.is_some() || head.is_all;
    let penalty = if is_many { 0.0 } else { SINGULAR_PENALTY };
    let score = (MENTION_PART * explained + (1.0 - MENTION_PART) - penalty) * best;
    let slots = slots(query, head, &domains, index, &things);
    // The only vacuum of a home is meant, by whatever brand or pet name it goes.
    let is_only = |thing: &Thing| english::is_mobile(&thing.domain);
    let is_only =
        things.len() == 1 && things.iter().all(|&at| index.things.get(at).is_some_and(is_only));
    let score_min = if is_only { 0.0 } else { GROUP_SCORE_MIN };
    Some(Group { things, score, score_min, is_all: is_many || !places.is_empty(), slots })
}

/// The domains that may be meant; none if no group is.
fn domains(query: &Query<'_>, head: &Head, places: &Places) -> Option<Vec<&'static str>> {
    let is_object = |domain: &&&str| query.takes(domain);
    let of = |domains: &'static [&'static str]| {
        Some(domains.iter().filter(is_object).copied().collect::<Vec<_>>())
    };
    match (head.kind, query.objects) {
        (Some(kind), _) => of(kind.domains),
        (None, Objects::None) => None,
        (None, _) if head.is_everything => of(english::SWITCHED_TOGETHER),
        // An intent for one kind of devices needs no word for them; the first is the usual one.
        (None, Objects::Of(domains)) if domains.len() <= 2 => of(domains.get(..1)?),
        // "turn off the kitchen".
        (None, Objects::Of(_)) if !places.is_empty() => of(&["light"]),
        (None, _) => None,
    }
}

fn slots(
    query: &Query<'_>,
    head: &Head,
    domains: &[&'static str],
    index: &Index,
    things: &[usize],
) -> Map<String, Value> {
    let mut slots = Map::new();
    // Intents for one domain do not say it again.
    let is_said = match query.objects {
        Objects::Of(domains) => {
            domains.len() > 2 || head.kind.is_some_and(|kind| !kind.device_class.is_empty())
        }
        Objects::Any => true,
        Objects::None => false,
    };
    if !is_said || head.is_everything {
        return slots;
    }
    let first = things.first().and_then(|&at| index.things.get(at));
    let domain = first.map(|thing| thing.domain.as_str()).or(domains.first().copied());
    if let Some(domain) = domain {
        slots.insert("domain".to_owned(), Value::from(domain));
    }
    if let Some(class) = head.kind.map(|kind| kind.device_class).filter(|class| !class.is_empty()) {
        slots.insert("device_class".to_owned(), Value::from(class));
    }
    slots
}
