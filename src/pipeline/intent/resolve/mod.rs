//! From what a sentence names to what there is in the home.
//!
//! Every name of the home is held against the sentence: what the model tagged as a name counts
//! most, but the other words count too, because a tag may be wrong where a name is right. Against
//! the single devices stand groups: all of a kind, in an area, on a floor, in the home.
//! Computes only; the same sentence gives the same answer.

mod english;
mod groups;
mod index;
mod mention;
mod score;
mod token;

use serde_json::{Map, Value};

use super::Sentence;
use super::decode::Reading;
use super::home::Home;
use super::slots::{Role, has_slot, slots};
use english::{Act, Objects};
use groups::{Head, Places, group};
use index::{Index, Of, Thing};
use mention::{Mention, Spoken};
use score::{Likeness, WORDS_MAX, Words, fit};

/// What an answer says beside the intent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolved {
    /// Where the device that was found is of a kind that another intent is for.
    pub intent: Option<String>,
    /// Home Assistant's slots.
    pub slots: Map<String, Value>,
    /// Ids, ascending, each once.
    pub entities: Vec<String>,
    /// Ids of areas that were named, those of a named floor included.
    pub areas: Vec<String>,
}

/// One home, ready to be asked.
#[derive(Debug, Clone)]
pub struct Resolver {
    index: Index,
}

/// A device that fits worse was not meant.
const SCORE_MIN: f32 = 0.55;
/// Scores nearer than this are equal.
const TIE: f32 = 0.01;
/// Of a device that is not where the sentence says.
const ELSEWHERE: f32 = 0.6;
/// A group that fits worse was not meant: what was said of it is not known here.
const GROUP_SCORE_MIN: f32 = 0.7;
/// Of a device that may be: it has no area, or moves about and is to work there.
const PERHAPS_HERE: f32 = 0.95;
/// How much of the words for a place is accounted for by a device that has no area.
const UNPLACED: f32 = 0.7;
/// Of one device, where several were spoken of.
const SINGULAR_FOR_PLURAL: f32 = 0.95;
/// How much of what was said fits counts this much; the rest is how much of the name was said.
const MENTION_PART: f32 = 0.55;

/// A mention, and all that it is held against.
struct Query<'a> {
    mention: Mention,
    spoken: &'a Spoken<'a>,
    likeness: &'a Likeness,
    objects: Objects,
    act: Act,
}

impl Query<'_> {
    /// Whether the intent may be done to devices of this domain.
    fn takes(&self, domain: &str) -> bool {
        match self.objects {
            Objects::Any => true,
            Objects::Of(domains) => domains.contains(&domain),
            Objects::None => false,
        }
    }

    fn takes_any(&self, domains: &[&str]) -> bool {
        domains.iter().any(|domain| self.takes(domain))
    }
}

/// The devices that fit a mention best, and how well.
struct Candidate {
    /// Several if nothing tells them apart.
    things: Vec<usize>,
    score: f32,
    words: Words,
}

/// What one mention is of.
#[derive(Debug, Default)]
struct Found {
    things: Vec<usize>,
    places: Vec<Of>,
    slots: Map<String, Value>,
}

impl Resolver {
    pub fn new(home: &Home) -> Self {
        Self { index: Index::new(home) }
    }

    /// Finds what `reading` of `sentence` is about.
    pub fn resolve(&self, sentence: &Sentence, reading: &Reading) -> Resolved {
        let spoken = Spoken::new(sentence, reading);
        let likeness = Likeness::new(&self.index, &spoken.tokens, spoken.relevant());
        let act = Act::of(&spoken.acting_words());
        let objects = english::objects(&reading.intent);
        let mut resolved = Resolved { slots: slots(sentence, reading), ..Resolved::default() };
        let mut all = Found::default();
        let mentions = spoken.mentions().into_iter().map(|mention| {
            self.find(&Query { mention, spoken: &spoken, likeness: &likeness, objects, act })
        });
        let mut mentions: Vec<Found> = mentions.collect();
        // Of two names, the one that the home knows.
        mentions.sort_by_key(|found| found.things.is_empty());
        for found in mentions {
            all.things.extend(found.things);
            all.places.extend(found.places);
            for (slot, value) in found.slots {
                resolved.slots.entry(slot).or_insert(value);
            }
        }
        resolved.slots.retain(|slot, _| has_slot(&reading.intent, slot));
        self.write_places(&all.places, &mut resolved);
        if all.places.is_empty() {
            for (slot, text) in spoken.places() {
                resolved.slots.entry(slot).or_insert_with(|| Value::from(text));
            }
        }
        let things = || all.things.iter().filter_map(|&at| self.index.things.get(at));
        resolved.entities = things().map(|thing| thing.id.clone()).collect();
        resolved.entities.sort_unstable();
        resolved.entities.dedup();
        let mut domains = things().map(|thing| thing.domain.as_str());
        if let (Some(domain), None) = (domains.next(), domains.next()) {
            resolved.intent = english::intent_for(&reading.intent, domain).map(str::to_owned);
        }
        let is_binary = |thing: &Thing| thing.domain == "binary_sensor";
        if !resolved.entities.is_empty() && things().all(is_binary) {
            adapt_state(&mut resolved.slots);
        }
        resolved
    }

    /// Holds one mention against devices and groups.
    fn find(&self, query: &Query<'_>) -> Found {
        let places = Places::new(&self.index, query);
        let mut found = Found { places: places.all(), ..Found::default() };
        if query.objects == Objects::None {
            // What is called by a name that the home does not know: a timer. But "the kitchen
            // timer" is one in the kitchen.
            let is_own = !query.mention.named.without(places.words()).is_empty();
            if is_own {
                found.places = places.outside(query.mention.named, query);
            }
            if let Some(name) = query.mention.text(query.spoken).filter(|_| is_own) {
                found.slots.insert("name".to_owned(), Value::from(name));
            }
            return found;
        }
        let weights = query.mention.weights(query.spoken, query.likeness);
        let head = Head::new(query);
        let device = self.device(query, &places, &head, &weights);
        let device_score = device.as_ref().map_or(0.0, |device| device.score);
        let group = group(&self.index, query, &places, &head, &weights);
        let kind = group.as_ref().filter(|_| head.is_said()).map(|group| group.slots.clone());
        let group = group.filter(|group| group.score > device_score.max(group.score_min) + TIE);
        let device = device.filter(|device| device.score >= SCORE_MIN);
        if let Some(group) = group {
            // Which of several was meant can't be said if one was spoken of.
            if group.things.len() == 1 || group.is_all {
                found.things = group.things;
            }
            found.slots = group.slots;
        } else if let Some(device) = device {
            found.places = places.outside(device.words, query);
            let first = device.things.first().and_then(|&at| self.index.things.get(at));
            if let Some(thing) = first {
                found.slots.insert("name".to_owned(), Value::from(thing.name.as_str()));
            }
            if device.things.len() == 1 {
                found.things = device.things;
            }
        } else if let Some(name) = query.mention.text(query.spoken) {
            found.slots.insert("name".to_owned(), Value::from(name));
        } else {
            found.slots = kind.unwrap_or_default();
        }
        found
    }

    /// The devices whose names fit best.
    fn device(
        &self,
        query: &Query<'_>,
        places: &Places,
        head: &Head,
        weights: &[f32; WORDS_MAX],
    ) -> Option<Candidate> {
        let (in_places, place_words) = (places.all(), places.words());
        let mut best: Option<Candidate> = None;
        for entry in &self.index.entries {
            let Of::Thing(at) = entry.of else { continue };
            let Some(thing) = self.index.things.get(at) else { continue };
            if !query.takes(&thing.domain) {
                continue;
            }
            let fit = fit(&self.index, entry, query.likeness, query.mention.words);
            if fit.words.is_empty() {
                continue;
            }
            let is_here = self.index.is_in(thing.area, &in_places);
            // What has no area may be anywhere.
            let here = match thing.area {
                None => UNPLACED,
                Some(_) => f32::from(u8::from(is_here)),
            };
            let like = |word: usize| {
                let by_name = fit.likes.get(word).copied().unwrap_or(0.0);
                let by_place = if place_words.has(word) { here } else { 0.0 };
                let by_noun = query.spoken.noun_likes(word, &thing.domain, &thing.device_class);
                by_name.max(by_place).max(by_noun)
            };
            let explained = query.mention.explained(weights, like);
            let mut score = MENTION_PART * explained + (1.0 - MENTION_PART) * fit.coverage;
            // Not where the sentence says, unless what it says is part of the name.
            if !is_here && !place_words.without(fit.words).is_empty() {
                let may_be_here = thing.area.is_none() || english::is_mobile(&thing.domain);
                score *= if may_be_here { PERHAPS_HERE } else { ELSEWHERE };
            }
            // "the lights" are not the one called light.
            let is_other_number = |word| fit.likes.get(word).is_some_and(|&like| like < 1.0);
            if head.plural.is_some_and(is_other_number) {
                score *= SINGULAR_FOR_PLURAL;
            }
            score *= query.act.suits(&thing.domain);
            match &mut best {
                Some(best) if score < best.score - TIE => {}
                Some(best) if score <= best.score + TIE => {
                    if !best.things.contains(&at) {
                        best.things.push(at);
                    }
                }
                _ => best = Some(Candidate { things: vec![at], score, words: fit.words }),
            }
        }
        best
    }

    fn write_places(&self, places: &[Of], resolved: &mut Resolved) {
        for place in places {
            match *place {
                Of::Area(at) => {
                    if let Some(area) = self.index.areas.get(at) {
                        let value = Value::from(area.name.as_str());
                        resolved.slots.entry("area").or_insert(value);
                        resolved.areas.push(area.id.clone());
                    }
                }
                Of::Floor(at) => {
                    if let Some(floor) = self.index.floors.get(at) {
                        let value = Value::from(floor.name.as_str());
                        resolved.slots.entry("floor").or_insert(value);
                    }
                    let areas = self.index.areas.iter().filter(|area| area.floor == Some(at));
                    resolved.areas.extend(areas.map(|area| area.id.clone()));
                }
                Of::Thing(_) => {}
            }
        }
        resolved.areas.sort_unstable();
        resolved.areas.dedup();
    }
}

/// The states of binary sensors are `on` and `off`, whatever people call them.
fn adapt_state(slots: &mut Map<String, Value>) {
    if let Some(Value::String(state)) = slots.get_mut("state") {
        match state.as_str() {
            "open" => *state = "on".to_owned(),
            "closed" => *state = "off".to_owned(),
            _ => {}
        }
    }
}

/// What can be said without a home: the slots, as they were spoken.
pub fn without_home(sentence: &Sentence, reading: &Reading) -> Resolved {
    let mut slots = slots(sentence, reading);
    for span in &reading.spans {
        if Role::of(&span.slot, &reading.intent) != Role::Value {
            let text = span.text(&sentence.text, &sentence.words);
            slots.entry(span.slot.clone()).or_insert_with(|| Value::from(text));
        }
    }
    Resolved { slots, ..Resolved::default() }
}
