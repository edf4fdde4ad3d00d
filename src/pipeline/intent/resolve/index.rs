//! A home's names, taken apart once so that every sentence can be held against all of them.

use std::collections::HashMap;

use super::english;
use super::token::Token;
use crate::pipeline::intent::features::words;
use crate::pipeline::intent::home::{Home, Named};

/// Something with an entity: a device, a person, a list.
#[derive(Debug, Clone)]
pub struct Thing {
    pub id: String,
    pub name: String,
    pub domain: String,
    pub device_class: String,
    /// Its place among [`Index::areas`].
    pub area: Option<usize>,
}

/// An area, or a floor.
#[derive(Debug, Clone)]
pub struct Place {
    pub id: String,
    pub name: String,
    /// Of an area: its place among [`Index::floors`].
    pub floor: Option<usize>,
}

/// What a name is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Thing(usize),
    Area(usize),
    Floor(usize),
}

/// One name of something.
#[derive(Debug, Clone)]
pub struct Entry {
    pub of: Of,
    /// Its words, as places among [`Index::tokens`].
    pub tokens: Vec<usize>,
    /// Each word joined to the next: one fewer.
    pub pairs: Vec<usize>,
}

/// All names of a home.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// Each different word once.
    pub tokens: Vec<Token>,
    /// Where a word is among them.
    places: HashMap<String, usize>,
    /// How much a word says: less, the more things have it in their names.
    pub weights: Vec<f32>,
    pub things: Vec<Thing>,
    pub areas: Vec<Place>,
    pub floors: Vec<Place>,
    pub entries: Vec<Entry>,
}

/// How much a common noun says, beside a name's other words.
const NOUN_WEIGHT: f32 = 0.6;

impl Index {
    pub fn new(home: &Home) -> Self {
        let mut index = Self::default();
        for floor in &home.floors {
            let of = Of::Floor(index.floors.len());
            index.floors.push(place(floor, None));
            index.add_names(of, floor);
        }
        for area in &home.areas {
            let of = Of::Area(index.areas.len());
            index.areas.push(place(&area.named, area.floor));
            index.add_names(of, &area.named);
        }
        for device in &home.devices {
            let class = &device.device_class;
            index.add_thing(&device.named, device.domain(), class, device.area);
        }
        let people = home.people.iter().map(|person| (person, "person"));
        let lists = home.lists.iter().map(|list| (list, "todo"));
        for (named, domain) in people.chain(lists) {
            // A person or a list may also be among the devices.
            if !home.devices.iter().any(|device| device.named.id == named.id) {
                index.add_thing(named, domain, "", None);
            }
        }
        index.weigh();
        index
    }

    fn add_thing(&mut self, named: &Named, domain: &str, class: &str, area: Option<usize>) {
        let of = Of::Thing(self.things.len());
        self.things.push(Thing {
            id: named.id.clone(),
            name: named.name.clone(),
            domain: domain.to_owned(),
            device_class: class.to_owned(),
            area,
        });
        self.add_names(of, named);
    }

    fn add_names(&mut self, of: Of, named: &Named) {
        for name in std::iter::once(&named.name).chain(&named.aliases) {
            let tokens: Vec<Token> =
                words(name).iter().map(|word| Token::new(&word.text)).collect();
            if tokens.is_empty() {
                continue;
            }
            let pairs = tokens.windows(2).filter_map(|pair| match pair {
                [first, second] => Some(Token::joined(first, second)),
                _ => None,
            });
            let pairs =
                pairs.collect::<Vec<_>>().into_iter().map(|pair| self.token(pair)).collect();
            let tokens = tokens.into_iter().map(|token| self.token(token)).collect();
            self.entries.push(Entry { of, tokens, pairs });
        }
    }

    fn token(&mut self, token: Token) -> usize {
        let next = self.tokens.len();
        let place = *self.places.entry(token.text.clone()).or_insert(next);
        if place == next {
            self.tokens.push(token);
        }
        place
    }

    #[expect(clippy::cast_precision_loss, reason = "a count of names")]
    fn weigh(&mut self) {
        let mut uses = vec![0usize; self.tokens.len()];
        let mut last_of = vec![None; self.tokens.len()];
        for entry in &self.entries {
            for &token in &entry.tokens {
                // Aliases of one thing count once.
                if let (Some(uses), Some(last)) = (uses.get_mut(token), last_of.get_mut(token))
                    && *last != Some(entry.of)
                {
                    *uses += 1;
                    *last = Some(entry.of);
                }
            }
        }
        let weigh = |(token, uses): (&Token, &usize)| {
            let rarity = 1.0 / (1.0 + (*uses).max(1) as f32).log2();
            let is_noun = english::noun(&token.text).is_some() || english::is_room(&token.text);
            if is_noun { NOUN_WEIGHT * rarity } else { rarity }
        };
        self.weights = self.tokens.iter().zip(&uses).map(weigh).collect();
    }

    /// Whether something in `area` is in one of these places.
    pub fn is_in(&self, area: Option<usize>, places: &[Of]) -> bool {
        let Some(area) = area else { return false };
        let floor = self.areas.get(area).and_then(|place| place.floor);
        places.iter().any(|place| match place {
            Of::Area(other) => *other == area,
            Of::Floor(other) => Some(*other) == floor,
            Of::Thing(_) => false,
        })
    }
}

fn place(named: &Named, floor: Option<usize>) -> Place {
    Place { id: named.id.clone(), name: named.name.clone(), floor }
}
