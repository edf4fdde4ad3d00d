//! The `parameters` object of the protocol: a map of strings, numbers and booleans.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::DecodeError;
use crate::infer::{Priority, RequestOptions};

/// Most entries of one `parameters` object.
const PARAMETERS_MAX: usize = 64;

/// A parameter's value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Bool(bool),
    Whole(u64),
    Number(f64),
    Text(String),
    /// An array, an object, `null`: known parameters take none of them.
    Other,
}

/// Parameters as they were given; those that nobody asks for are ignored, as the protocol says.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, Scalar)>);

impl Parameters {
    pub(super) fn push(&mut self, name: String, value: Scalar) {
        self.0.push((name, value));
    }

    fn get(&self, name: &str) -> Option<&Scalar> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn boolean(&self, name: &'static str) -> Result<Option<bool>, DecodeError> {
        match self.get(name) {
            None => Ok(None),
            Some(Scalar::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(DecodeError::parameter(name, "not a boolean: give true or false")),
        }
    }

    pub(super) fn whole(&self, name: &'static str) -> Result<Option<usize>, DecodeError> {
        let wrong = || DecodeError::parameter(name, "not a whole number: give 0, 1, 2, ...");
        match self.get(name) {
            None => Ok(None),
            Some(Scalar::Whole(value)) => usize::try_from(*value).map(Some).map_err(|_| wrong()),
            Some(_) => Err(wrong()),
        }
    }

    fn budget(&self) -> Result<Option<f32>, DecodeError> {
        let value = match self.get("budget") {
            None => return Ok(None),
            Some(Scalar::Whole(value)) => *value as f64,
            Some(Scalar::Number(value)) => *value,
            Some(_) => f64::NAN,
        };
        if (0.0..=1.0).contains(&value) {
            return Ok(Some(value as f32));
        }
        let cause = "out of range: give a number from 0 (cheapest) to 1 (best)";
        Err(DecodeError::parameter("budget", cause))
    }

    /// Of the schedule policy extension: 0 is the default, 1 the highest; moed has three classes.
    fn priority(&self) -> Result<Priority, DecodeError> {
        match self.get("priority") {
            None | Some(Scalar::Whole(0 | 2)) => Ok(Priority::Normal),
            Some(Scalar::Whole(1)) => Ok(Priority::High),
            Some(Scalar::Whole(_)) => Ok(Priority::Low),
            Some(Scalar::Text(word)) if word == "high" => Ok(Priority::High),
            Some(Scalar::Text(word)) if word == "normal" => Ok(Priority::Normal),
            Some(Scalar::Text(word)) if word == "low" => Ok(Priority::Low),
            Some(_) => {
                let cause = "unknown: give 1 (high), 2 (normal) or 3 (low)";
                Err(DecodeError::parameter("priority", cause))
            }
        }
    }

    pub(super) fn options(&self) -> Result<RequestOptions, DecodeError> {
        let (k, budget, priority) = (self.whole("k")?, self.budget()?, self.priority()?);
        Ok(RequestOptions { k, budget, priority, outputs: Vec::new() })
    }

    /// Microseconds, as in the schedule policy extension; 0 is the default.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, DecodeError> {
        let cause = "not a time: give a whole number of microseconds";
        match self.get("timeout") {
            None | Some(Scalar::Whole(0)) => Ok(None),
            Some(Scalar::Whole(us)) => Ok(Some(Duration::from_micros(*us))),
            Some(_) => Err(DecodeError::parameter("timeout", cause)),
        }
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Parameters;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
                let mut parameters = Parameters::default();
                while let Some((name, value)) = map.next_entry::<String, Scalar>()? {
                    if parameters.0.len() >= PARAMETERS_MAX {
                        let text = format_args!("more than {PARAMETERS_MAX} parameters");
                        return Err(serde::de::Error::custom(text));
                    }
                    parameters.push(name, value);
                }
                Ok(parameters)
            }
        }

        deserializer.deserialize_map(Map)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number or a boolean")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar::Whole(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value as f64))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }

        deserializer.deserialize_any(Any)
    }
}
