//! How well the words of a sentence fit a name.

use super::index::{Entry, Index};
use super::token::{Token, similarity};

/// Words of a sentence that are looked at: one bit each of a [`Words`].
pub const WORDS_MAX: usize = 64;

/// A set of words of a sentence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Words(u64);

impl Words {
    pub fn insert(&mut self, word: usize) {
        if word < WORDS_MAX {
            self.0 |= 1 << word;
        }
    }

    pub fn has(self, word: usize) -> bool {
        word < WORDS_MAX && self.0 & (1 << word) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..WORDS_MAX).filter(move |&word| self.has(word))
    }
}

/// How alike each word of a sentence, and each two that stand side by side, are to each word of a
/// home's names.
#[derive(Debug)]
pub struct Likeness {
    tokens: usize,
    /// `[words, tokens]`
    single: Vec<f32>,
    /// `[words, tokens]`, of a word joined to the next.
    joined: Vec<f32>,
    /// For each word, the name's word that is most like it: how alike, and how much that one says.
    best: Vec<(f32, f32)>,
}

/// Two words written as one must be nearly it: a chance likeness is likelier.
const JOINED_MIN: f32 = 0.85;

impl Likeness {
    /// `words` are at most [`WORDS_MAX`], of which those in `relevant` are compared.
    pub fn new(index: &Index, words: &[Token], relevant: Words) -> Self {
        let tokens = index.tokens.len();
        let mut single = Vec::with_capacity(words.len() * tokens);
        let mut joined = Vec::with_capacity(words.len() * tokens);
        let mut best = Vec::with_capacity(words.len());
        for (at, word) in words.iter().enumerate() {
            if !relevant.has(at) {
                single.resize(single.len() + tokens, 0.0);
                joined.resize(joined.len() + tokens, 0.0);
                best.push((0.0, 0.0));
                continue;
            }
            let from = single.len();
            single.extend(index.tokens.iter().map(|token| similarity(word, token, LIKE_MIN)));
            let likes = single.iter().skip(from).zip(&index.weights);
            let most = likes.fold(
                (0.0, 0.0),
                |most: (f32, f32), (&like, &weight)| {
                    if like > most.0 { (like, weight) } else { most }
                },
            );
            best.push(most);
            match words.get(at + 1).filter(|_| relevant.has(at + 1)) {
                Some(next) => {
                    let pair = Token::joined(word, next);
                    let like = |token| similarity(&pair, token, JOINED_MIN);
                    joined.extend(index.tokens.iter().map(like));
                }
                None => joined.resize(joined.len() + tokens, 0.0),
            }
        }
        Self { tokens, single, joined, best }
    }

    fn single(&self, word: usize, token: usize) -> f32 {
        self.single.get(word * self.tokens + token).copied().unwrap_or(0.0)
    }

    fn joined(&self, word: usize, token: usize) -> f32 {
        self.joined.get(word * self.tokens + token).copied().unwrap_or(0.0)
    }

    /// How alike `word` is to the word of any name that is most like it, and how much that one
    /// says.
    pub fn best(&self, word: usize) -> (f32, f32) {
        self.best.get(word).copied().unwrap_or_default()
    }
}

/// A name held against a sentence.
#[derive(Debug, Clone, Copy)]
pub struct Fit {
    /// The part of the name that was said, 0 to 1, its rarer words counting more.
    pub coverage: f32,
    /// The words that said it.
    pub words: Words,
    /// How well each of them did.
    pub likes: [f32; WORDS_MAX],
}

/// Less alike than this, two words are two words.
const LIKE_MIN: f32 = 0.6;

/// Holds a name against the words `among` of a sentence. The order of words does not matter.
pub fn fit(index: &Index, entry: &Entry, likeness: &Likeness, among: Words) -> Fit {
    let mut fit = Fit { coverage: 0.0, words: Words::default(), likes: [0.0; WORDS_MAX] };
    let (mut found, mut all) = (0.0, 0.0);
    let mut taken_by_pair = false;
    for (at, &token) in entry.tokens.iter().enumerate() {
        let weight = index.weights.get(token).copied().unwrap_or(1.0);
        all += weight;
        if std::mem::take(&mut taken_by_pair) {
            found += weight;
            continue;
        }
        let pair = entry.pairs.get(at).copied();
        let Some(best) = best_of(token, pair, likeness, among.without(fit.words)) else { continue };
        for word in [Some(best.word), best.with_next.then_some(best.word + 1)].into_iter().flatten()
        {
            fit.words.insert(word);
            if let Some(like) = fit.likes.get_mut(word) {
                *like = best.like;
            }
        }
        found += weight * best.like;
        taken_by_pair = best.is_pair;
    }
    if all > 0.0 {
        fit.coverage = found / all;
    }
    fit
}

struct Best {
    like: f32,
    word: usize,
    /// The word and the next one, written as one, are the name's.
    with_next: bool,
    /// The word is this and the next of the name, written as one.
    is_pair: bool,
}

fn best_of(token: usize, pair: Option<usize>, likeness: &Likeness, among: Words) -> Option<Best> {
    let mut best: Option<Best> = None;
    let mut offer = |like: f32, word, with_next, is_pair| {
        if like >= LIKE_MIN && best.as_ref().is_none_or(|best| like > best.like) {
            best = Some(Best { like, word, with_next, is_pair });
        }
    };
    for word in among.iter() {
        offer(likeness.single(word, token), word, false, false);
        if among.has(word + 1) {
            offer(likeness.joined(word, token), word, true, false);
        }
        if let Some(pair) = pair {
            let like = likeness.single(word, pair);
            offer(if like >= JOINED_MIN { like } else { 0.0 }, word, false, true);
        }
    }
    best
}
