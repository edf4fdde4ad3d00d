//! Numbers as people say them: digits, English words, halves.

/// Words for 0 to 19, in order.
const UNITS: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
/// Words for 20, 30, ... 90.
const TENS: [&str; 8] =
    ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
/// The largest number: no value of a home is larger.
const NUMBER_MAX: f64 = 1e9;
/// Shorter words are too like one another to be taken for a misspelt number.
const MISSPELT_CHARS_MIN: usize = 5;

/// What a word is to a number.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    /// 0 to 19, 20, 30, ... 90, or digits.
    Number(f64),
    /// 100 or 1000.
    Times(f64),
    Half,
    Quarter,
    Point,
    Minus,
    /// `and`, `a`: says nothing by itself.
    Filler,
}

/// The number that `words` say, or the first of them. Words that are no part of one are passed
/// over. `None` if there is none.
pub fn parse(words: &[&str]) -> Option<f64> {
    let parts = words.iter().map(|word| part(word));
    // From the first word of a number to before the first that is of none.
    let run: Vec<Part> = parts.skip_while(Option::is_none).map_while(|part| part).collect();
    let value = sum(&run)?;
    (value.abs() <= NUMBER_MAX).then_some(value)
}

/// Whether `word` alone says a number.
pub fn is_number(word: &str) -> bool {
    matches!(part(word), Some(Part::Number(_) | Part::Times(_) | Part::Half))
}

fn sum(run: &[Part]) -> Option<f64> {
    // Whole thousands, and what is below a thousand.
    let (mut thousands, mut below) = (0.0, 0.0);
    let mut decimals: Option<f64> = None;
    let mut fraction = 0.0;
    let mut is_negative = false;
    let mut is_number = false;
    for part in run {
        match (*part, decimals) {
            // "twenty one point five": digit by digit.
            (Part::Number(digit), Some(place)) if digit < 10.0 => {
                fraction += digit * place;
                decimals = Some(place / 10.0);
            }
            (Part::Number(number), None) => {
                // "two fifty" is no number, but a "to" that was heard as two, and fifty.
                below = if goes_on(below, number) { below + number } else { number };
                is_number = true;
            }
            (Part::Times(times), None) => {
                let factor = if below == 0.0 { 1.0 } else { below };
                if times >= 1000.0 {
                    thousands += factor * times;
                    below = 0.0;
                } else {
                    below = factor * times;
                }
                is_number = true;
            }
            (Part::Half, _) => {
                fraction += 0.5;
                is_number = true;
            }
            (Part::Quarter, _) => {
                // "three quarters" and "a quarter".
                let quarters = if below == 0.0 { 1.0 } else { below };
                below = 0.0;
                fraction += quarters / 4.0;
                is_number = true;
            }
            (Part::Point, None) => decimals = Some(0.1),
            (Part::Minus, None) if !is_number => is_negative = true,
            (Part::Filler, _) => {}
            _ => break,
        }
    }
    let value = thousands + below + fraction;
    is_number.then_some(if is_negative { -value } else { value })
}

/// Whether a number may be said after another as a part of it: 1 after 20, 21 after 100.
fn goes_on(below: f64, number: f64) -> bool {
    let (tens, units) = (below % 100.0, below % 10.0);
    let fits_tens = tens == 0.0 && number < 100.0;
    let fits_units = units == 0.0 && tens >= 20.0 && number < 10.0;
    below == 0.0 || fits_tens || fits_units
}

fn part(word: &str) -> Option<Part> {
    if word.starts_with(|c: char| c.is_ascii_digit()) {
        return digits(word).map(Part::Number);
    }
    Some(match word {
        "hundred" => Part::Times(100.0),
        "thousand" => Part::Times(1000.0),
        "half" => Part::Half,
        "quarter" | "quarters" => Part::Quarter,
        "point" => Part::Point,
        "minus" | "negative" => Part::Minus,
        "and" | "a" | "an" | "percent" | "%" | "°" | "degrees" | "degree" => Part::Filler,
        _ => Part::Number(word_value(word)?),
    })
}

/// `40`, `21.5`, `1,000`; units that are stuck to it (`40pct`, `1st`) are dropped.
fn digits(word: &str) -> Option<f64> {
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',');
    let number = word.get(..end.unwrap_or(word.len()))?.trim_end_matches(['.', ',']);
    // A comma before three digits separates thousands, any other one decimals.
    let is_thousands = number.rsplit_once(',').is_some_and(|(_, rest)| rest.len() == 3);
    let plain = number.replace(',', if is_thousands { "" } else { "." });
    plain.parse().ok().filter(|number: &f64| number.is_finite())
}

/// The value of one word below 100; near misses of long words are taken, but not of the first
/// letter, which few get wrong: "light" is no eight.
fn word_value(word: &str) -> Option<f64> {
    let numbers = || {
        let units = UNITS.iter().zip(0u32..);
        units.chain(TENS.iter().zip((20u32..).step_by(10)))
    };
    let exact = numbers().find(|(name, _)| **name == word);
    let near = || {
        let is_near = |name: &str| {
            name.len() >= MISSPELT_CHARS_MIN
                && name.chars().next() == word.chars().next()
                && strsim::osa_distance(name, word) == 1
        };
        numbers().find(|(name, _)| is_near(name))
    };
    exact.or_else(near).map(|(_, value)| f64::from(value))
}

/// A number word as digits (`two` as `2`), so that `bedroom two` and `bedroom 2` are one name.
pub fn word_as_digits(word: &str) -> Option<String> {
    let units = UNITS.iter().position(|name| *name == word).map(|at| at.to_string());
    units
        .or_else(|| TENS.iter().position(|name| *name == word).map(|at| (10 * at + 20).to_string()))
}
