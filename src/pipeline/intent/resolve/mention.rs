//! What a sentence mentions: its words, what the model took each for, and how much each says.

use super::super::Sentence;
use super::super::decode::{Reading, Span};
use super::super::slots::Role;
use super::english::{self, Kind};
use super::score::{Likeness, WORDS_MAX, Words};
use super::token::Token;

/// How much a word of a role says about what is meant.
fn weight(role: Role) -> f32 {
    match role {
        Role::Name => 1.0,
        Role::Place => 0.8,
        Role::Kind => 0.6,
        Role::Free => 0.35,
        Role::Value => 0.0,
    }
}

/// A sentence as it is held against a home.
#[derive(Debug)]
pub struct Spoken<'a> {
    sentence: &'a Sentence,
    pub tokens: Vec<Token>,
    pub roles: Vec<Role>,
    /// For each word, the kind of devices that it, or it and a neighbour, stands for.
    pub nouns: Vec<Option<Kind>>,
    /// Words of nouns of two words.
    pub compounds: Words,
    /// Words that say what is done: no names, no values.
    acting: Words,
    /// Tagged names, each a mention.
    names: Vec<Words>,
    /// Tagged places: the slot, and the words.
    places: Vec<(String, Words)>,
}

impl<'a> Spoken<'a> {
    pub fn new(sentence: &'a Sentence, reading: &Reading) -> Self {
        let count = sentence.words.len().min(WORDS_MAX);
        let words: Vec<&str> = sentence.words.iter().map(|word| word.text.as_str()).collect();
        let mut spoken = Self {
            sentence,
            tokens: words.iter().take(count).map(|word| Token::new(word)).collect(),
            roles: vec![Role::Free; count],
            nouns: vec![None; count],
            compounds: Words::default(),
            acting: Words::default(),
            names: Vec::new(),
            places: Vec::new(),
        };
        for word in 0..count {
            spoken.acting.insert(word);
        }
        for span in &reading.spans {
            spoken.take_span(span, &words, &reading.intent);
        }
        spoken.find_nouns(&words);
        spoken.find_near_nouns(&words);
        spoken
    }

    fn take_span(&mut self, span: &Span, words: &[&str], intent: &str) {
        let role = Role::of(&span.slot, intent);
        let (from, to) = span.words;
        let mut taken = Words::default();
        for word in from..to.min(self.roles.len()) {
            taken.insert(word);
            if let Some(slot) = self.roles.get_mut(word) {
                *slot = role;
            }
        }
        // A state says what is done, too: "is the door locked".
        if span.slot != "state" {
            self.acting = self.acting.without(taken);
        }
        match role {
            Role::Name => self.take_name(taken, words),
            Role::Place => {
                let mut place = Words::default();
                let is_own = |&at: &usize| words.get(at).is_some_and(|word| !is_determiner(word));
                taken.iter().filter(is_own).for_each(|at| place.insert(at));
                self.places.push((span.slot.clone(), place));
            }
            Role::Kind | Role::Value | Role::Free => {}
        }
    }

    /// Tagged places, as they were said, each with its slot; "the house" is all of them.
    pub fn places(&self) -> Vec<(&str, &'a str)> {
        let text = |words: &Words| self.text(*words).unwrap_or_default();
        let is_part = |words: &Words| words.iter().any(|at| !english::is_home(self.word(at)));
        let places = self.places.iter().filter(|(_, words)| is_part(words));
        places.map(|(slot, words)| (slot.as_str(), text(words))).collect()
    }

    /// The words that were tagged as one place together with any of `words`.
    pub fn place_of(&self, words: Words) -> Words {
        let spans = self.places.iter().filter(|(_, place)| !place.and(words).is_empty());
        spans.fold(words, |all, (_, place)| all.or(*place))
    }

    /// From the first of `words` to the last, as it was written.
    fn text(&self, words: Words) -> Option<&'a str> {
        let first = self.sentence.words.get(words.iter().next()?)?;
        let last = self.sentence.words.get(words.iter().last()?)?;
        self.sentence.text.get(first.bytes.0..last.bytes.1)
    }

    /// "the lamp and the fan" are two names; what comes before a name's first word of its own
    /// ("the", "all my") is none of it.
    fn take_name(&mut self, taken: Words, words: &[&str]) {
        let mut name = Words::default();
        for word in taken.iter() {
            let text = words.get(word).copied().unwrap_or_default();
            if text == "and" && !name.is_empty() {
                self.names.push(std::mem::take(&mut name));
            } else if !name.is_empty() || !is_determiner(text) {
                name.insert(word);
            }
        }
        if !name.is_empty() {
            self.names.push(name);
        }
    }

    /// Finds misspelt nouns. Words that were tagged as a kind and are none, however misspelt, were
    /// tagged by mistake.
    fn find_near_nouns(&mut self, words: &[&str]) {
        for at in 0..self.roles.len() {
            let [word, next] = [at, at + 1].map(|at| words.get(at).copied().unwrap_or_default());
            let is_kind = |at: usize| self.roles.get(at) == Some(&Role::Kind);
            let may_be = match self.roles.get(at) {
                Some(Role::Name | Role::Kind) => true,
                Some(Role::Free) => !english::is_stop_word(word),
                _ => false,
            };
            if !may_be || self.nouns.get(at).is_some_and(Option::is_some) {
                continue;
            }
            let alone = if is_kind(at) {
                english::noun_near(word, KIND_MIN, |_| true)
            } else if word.len() >= UNTAGGED_KIND_CHARS_MIN {
                english::noun_near(word, UNTAGGED_KIND_MIN, |noun| noun.get(..1) == word.get(..1))
            } else {
                None
            };
            let pair = (is_kind(at) && is_kind(at + 1)).then(|| format!("{word} {next}"));
            let pair = pair.and_then(|pair| english::noun_near(&pair, KIND_PAIR_MIN, |_| true));
            let is_pair = pair.map(|(like, _)| like) > alone.map(|(like, _)| like);
            let kind = if is_pair { pair } else { alone }.map(|(_, kind)| kind);
            if is_kind(at)
                && kind.is_none()
                && let Some(role) = self.roles.get_mut(at)
            {
                *role = Role::Free;
            }
            if let Some(noun) = self.nouns.get_mut(at) {
                *noun = kind;
            }
            if is_pair && let Some(noun) = self.nouns.get_mut(at + 1) {
                *noun = kind;
                self.compounds.insert(at);
                self.compounds.insert(at + 1);
            }
        }
    }

    fn find_nouns(&mut self, words: &[&str]) {
        let mut word = 0;
        while word < self.tokens.len() {
            let is_said = |at: usize| match self.roles.get(at) {
                Some(Role::Name | Role::Kind) => true,
                Some(Role::Free) => words.get(at).is_some_and(|text| !english::is_stop_word(text)),
                _ => false,
            };
            let pair = match words.get(word..word + 2) {
                Some([first, second]) if is_said(word) && is_said(word + 1) => {
                    english::noun(&format!("{first} {second}"))
                }
                _ => None,
            };
            if let (Some(kind), Some([first, second])) = (pair, self.nouns.get_mut(word..word + 2))
            {
                (*first, *second) = (Some(kind), Some(kind));
                self.compounds.insert(word);
                self.compounds.insert(word + 1);
                word += 2;
                continue;
            }
            let text = words.get(word).copied().filter(|_| is_said(word));
            if let Some(noun) = self.nouns.get_mut(word) {
                *noun = text.and_then(english::noun);
            }
            word += 1;
        }
    }

    pub fn word(&self, at: usize) -> &str {
        self.sentence.words.get(at).map_or("", |word| word.text.as_str())
    }

    pub fn role(&self, at: usize) -> Role {
        self.roles.get(at).copied().unwrap_or(Role::Value)
    }

    /// Words that may be part of a name.
    pub fn relevant(&self) -> Words {
        self.with(|at, role| match role {
            Role::Value => false,
            Role::Free => !english::is_stop_word(self.word(at)),
            Role::Name | Role::Place | Role::Kind => true,
        })
    }

    /// Words for which `is` holds.
    pub fn with(&self, is: impl Fn(usize, Role) -> bool) -> Words {
        let mut words = Words::default();
        for (at, &role) in self.roles.iter().enumerate() {
            if is(at, role) {
                words.insert(at);
            }
        }
        words
    }

    /// Words that say what is done.
    pub fn acting_words(&self) -> Vec<&str> {
        self.acting.iter().map(|at| self.word(at)).collect()
    }

    /// One for each name; one without a name if none was tagged.
    pub fn mentions(&self) -> Vec<Mention> {
        let others = self.relevant().without(self.with(|_, role| role == Role::Name));
        if self.names.is_empty() {
            return vec![Mention { named: Words::default(), words: others }];
        }
        let mention = |&named: &Words| Mention { named, words: named.or(others) };
        self.names.iter().map(mention).collect()
    }

    /// How well `word` stands for a device of this domain and class.
    pub fn noun_likes(&self, word: usize, domain: &str, class: &str) -> f32 {
        let Some(Some(kind)) = self.nouns.get(word) else { return 0.0 };
        if !kind.domains.contains(&domain) {
            0.0
        } else if kind.device_class.is_empty() || kind.device_class == class {
            0.85
        } else if class.is_empty() {
            0.75
        } else if domain == "cover" {
            // People say blinds, shades and shutters of the same thing.
            0.6
        } else {
            0.2
        }
    }
}

fn is_determiner(word: &str) -> bool {
    matches!(word, "the" | "a" | "an" | "my" | "our" | "your" | "this" | "that")
        || english::is_all(word)
}

/// How alike a word that was tagged as a kind must be to one.
const KIND_MIN: f32 = 0.65;
/// And two words.
const KIND_PAIR_MIN: f32 = 0.75;
/// And one that was not.
const UNTAGGED_KIND_MIN: f32 = 0.82;
const UNTAGGED_KIND_CHARS_MIN: usize = 4;

/// A thing that is spoken of.
#[derive(Debug, Clone, Copy)]
pub struct Mention {
    /// Words that the model tagged as its name.
    pub named: Words,
    /// Those, and all others of the sentence that may say more of it.
    pub words: Words,
}

/// A word that is less like any of the home's is one that the home does not know.
pub const KNOWN_MIN: f32 = 0.7;
/// An untagged word must be nearly one of the home's to count.
const FREE_MIN: f32 = 0.84;
/// How much an unknown noun for a kind of devices says, beside a name's other words.
const NOUN_WEIGHT: f32 = 0.5;

impl Mention {
    /// How much each word says of what is meant.
    pub fn weights(&self, spoken: &Spoken<'_>, likeness: &Likeness) -> [f32; WORDS_MAX] {
        let mut weights = [0.0; WORDS_MAX];
        for at in self.words.iter() {
            let role = spoken.role(at);
            let is_home = || english::is_home(spoken.word(at)) && role != Role::Name;
            if english::is_all(spoken.word(at)) || is_home() {
                continue;
            }
            let (like, says) = likeness.best(at);
            let is_noun = spoken.nouns.get(at).is_some_and(Option::is_some);
            let known = match role {
                Role::Free if like < FREE_MIN && !is_noun => 0.0,
                _ if like >= KNOWN_MIN => says,
                _ if is_noun => NOUN_WEIGHT,
                _ => 1.0,
            };
            if let Some(weight) = weights.get_mut(at) {
                *weight = self::weight(role) * known;
            }
        }
        weights
    }

    /// The part of what was said that `like` accounts for, 0 to 1; 1 if nothing was said.
    pub fn explained(&self, weights: &[f32; WORDS_MAX], like: impl Fn(usize) -> f32) -> f32 {
        let (mut found, mut all) = (0.0, 0.0);
        for at in self.words.iter() {
            let weight = weights.get(at).copied().unwrap_or(0.0);
            if weight > 0.0 {
                all += weight;
                found += weight * like(at);
            }
        }
        if all > 0.0 { found / all } else { 1.0 }
    }

    /// Its name, as it was written.
    pub fn text<'a>(&self, spoken: &Spoken<'a>) -> Option<&'a str> {
        spoken.text(self.named)
    }
}
