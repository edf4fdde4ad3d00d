//! How the demo looks: two lines for each answer, of at most 80 columns, in colours on a terminal.

use std::io::IsTerminal as _;

use serde_json::Value;

use crate::cli::query::{experts, slots};
use crate::config::environment::Environment;

/// What a terminal has at least.
const COLUMNS: usize = 80;
/// Of these, for what was said.
const TEXT: usize = 53;

/// Whether there are colours.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    has_colours: bool,
}

#[derive(Debug, Clone, Copy)]
enum Colour {
    Bold,
    Faint,
    Green,
    Red,
}

impl Style {
    /// Colours for a terminal whose owner has not asked for none (`NO_COLOR`).
    pub fn of_standard_output() -> Self {
        let is_plain = Environment::read().is_plain;
        Self { has_colours: std::io::stdout().is_terminal() && !is_plain }
    }

    fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Bold => 1,
            Colour::Faint => 2,
            Colour::Red => 31,
            Colour::Green => 32,
        };
        if self.has_colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The columns' names.
    pub fn head(self) -> String {
        let line = format!(
            "    {:<TEXT$}{:>5}{:>10}{:>8}\n",
            "what was said, and what is to be done", "sure", "experts", "us"
        );
        self.paint(Colour::Faint, &line)
    }

    /// An answer, and whether it is what was meant.
    pub fn answer(self, text: &str, is_right: bool, answer: &Value) -> String {
        let sure = answer.get("confidence").and_then(Value::as_f64).unwrap_or(0.0) * 100.0;
        let us = answer.get("parameters").and_then(|all| all.get("compute_us")?.as_u64());
        let us = us.unwrap_or(0);
        let mark = match is_right {
            true => self.paint(Colour::Green, "ok"),
            false => self.paint(Colour::Red, "--"),
        };
        let said = self.paint(Colour::Bold, &format!("{:<TEXT$}", cut(text, TEXT)));
        let done = cut(&action(answer), COLUMNS - 4);
        format!(
            "{mark}  {said}{sure:>4.0}%{:>10}{us:>8}\n    {}\n",
            experts(answer),
            self.paint(Colour::Faint, &done)
        )
    }
}

/// The intent, its slots, and what in the home it is done to.
fn action(answer: &Value) -> String {
    let intent = answer.get("intent").and_then(Value::as_str).unwrap_or_default();
    let mut texts = vec![intent.to_owned()];
    texts.extend(slots(answer));
    let entities = answer.get("entities").and_then(Value::as_array);
    let ids: Vec<_> = entities.into_iter().flatten().filter_map(Value::as_str).collect();
    if !ids.is_empty() {
        texts.push(format!("-> {}", ids.join(", ")));
    }
    texts.join("  ")
}

/// As much of `text` as fits.
fn cut(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    let kept: String = text.chars().take(chars.saturating_sub(3)).collect();
    kept + "..."
}
