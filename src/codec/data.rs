//! JSON arrays, nested or flat, to typed elements, without a tree of values in between.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use super::Limits;
use super::datatype::word;
use crate::tensor::{DType, Data, RANK_MAX};

/// What an array of JSON holds.
pub(super) struct Parsed {
    pub data: Data,
    /// The array's own dimensions: none for a lone value, one if it is flat.
    pub dims: Vec<usize>,
}

/// Why an array can't be read.
pub(super) enum DataError {
    Wrong(String),
    TooLarge { what: &'static str, max: usize },
}

/// Reads `json`, which is valid JSON, as elements of `dtype`.
pub(super) fn parse(json: &str, dtype: DType, limits: &Limits) -> Result<Parsed, DataError> {
    macro_rules! numbers {
        ($variant:ident) => {
            elements(json, dtype, limits, limits.elements_max)
                .map(|(data, dims)| Parsed { data: Data::$variant(data), dims })
        };
    }
    match dtype {
        DType::Bool => numbers!(Bool),
        DType::I8 => numbers!(I8),
        DType::I16 => numbers!(I16),
        DType::I32 => numbers!(I32),
        DType::I64 => numbers!(I64),
        DType::U8 => numbers!(U8),
        DType::U16 => numbers!(U16),
        DType::U32 => numbers!(U32),
        DType::U64 => numbers!(U64),
        DType::F32 => numbers!(F32),
        DType::F64 => numbers!(F64),
        DType::F16 => {
            let cause = "FP16 has no form in JSON: send it as binary data, or as FP32 to a model \
                         that takes it";
            Err(DataError::Wrong(cause.to_owned()))
        }
        DType::Bytes => elements(json, dtype, limits, limits.strings_max)
            .map(|(data, dims)| Parsed { data: Data::Bytes(data), dims }),
    }
}

fn elements<T: Element>(
    json: &str,
    dtype: DType,
    limits: &Limits,
    elements_max: usize,
) -> Result<(Vec<T>, Vec<usize>), DataError> {
    let mut nest = Nest {
        out: Vec::new(),
        dtype,
        elements_max,
        string_bytes_max: limits.string_bytes_max,
        lengths: [None; RANK_MAX],
        leaves_at: None,
        error: None,
    };
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let result = Level { nest: &mut nest, level: 0 }.deserialize(&mut deserializer);
    match (result, nest.error) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(DataError::Wrong(error.to_string())),
        (Ok(()), None) => {
            let dims = nest.lengths.iter().map_while(|length| *length).collect();
            Ok((nest.out, dims))
        }
    }
}

/// What is known of nested arrays while they are read.
struct Nest<T> {
    out: Vec<T>,
    dtype: DType,
    elements_max: usize,
    string_bytes_max: usize,
    /// Of the first array of each level; all others of it must have the same.
    lengths: [Option<usize>; RANK_MAX],
    /// How many arrays are around each element.
    leaves_at: Option<usize>,
    error: Option<DataError>,
}

impl<T: Element> Nest<T> {
    /// Keeps the error: serde's own would add a position that means nothing to the sender.
    fn fail<E: serde::de::Error>(&mut self, error: DataError) -> E {
        self.error.get_or_insert(error);
        E::custom("")
    }

    fn wrong<E: serde::de::Error>(&mut self, cause: impl Into<String>) -> E {
        self.fail(DataError::Wrong(cause.into()))
    }

    fn ragged<E: serde::de::Error>(&mut self) -> E {
        self.wrong("nested arrays differ in length or depth: give all of them the same shape")
    }

    fn push<E: serde::de::Error>(
        &mut self,
        level: usize,
        element: Option<T>,
        given: &dyn fmt::Display,
    ) -> Result<(), E> {
        let has_array = self.lengths.get(level).is_some_and(Option::is_some);
        if has_array || self.leaves_at.is_some_and(|at| at != level) {
            return Err(self.ragged());
        }
        self.leaves_at = Some(level);
        if self.out.len() >= self.elements_max {
            return Err(self.fail(DataError::TooLarge { what: "elements", max: self.elements_max }));
        }
        match element {
            Some(element) => self.out.push(element),
            None => {
                let (at, dtype) = (self.out.len(), word(self.dtype));
                return Err(self.wrong(format!(
                    "element {at}: {given} is not {dtype}: {dtype} takes {}",
                    T::TAKES
                )));
            }
        }
        Ok(())
    }
}

/// A value inside `level` arrays.
struct Level<'a, T> {
    nest: &'a mut Nest<T>,
    level: usize,
}

impl<'de, T: Element> DeserializeSeed<'de> for Level<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Element> Visitor<'de> for Level<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {}", T::TAKES)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.nest.push(self.level, T::from_bool(value), &value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.nest.push(self.level, T::from_unsigned(value), &value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.nest.push(self.level, T::from_signed(value), &value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.nest.push(self.level, T::from_float(value), &value)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.nest.push(self.level, T::from_null(), &"null")
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        let max = self.nest.string_bytes_max;
        if value.len() > max {
            return Err(self.nest.fail(DataError::TooLarge { what: "bytes of a string", max }));
        }
        self.nest.push(self.level, T::from_text(value), &"a string")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { nest, level } = self;
        if level >= RANK_MAX {
            let cause = format!("arrays nested deeper than {RANK_MAX}: send them flat");
            return Err(nest.wrong(cause));
        }
        if nest.leaves_at.is_some_and(|at| at <= level) {
            return Err(nest.ragged());
        }
        let mut length = 0;
        while seq.next_element_seed(Level { nest: &mut *nest, level: level + 1 })?.is_some() {
            length += 1;
        }
        match nest.lengths.get_mut(level) {
            Some(known @ None) => *known = Some(length),
            Some(Some(known)) if *known == length => {}
            _ => return Err(nest.ragged()),
        }
        Ok(())
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, _map: A) -> Result<(), A::Error> {
        let cause = format!("an object is not an element: give an array of {}", T::TAKES);
        let _: A::Error = self.nest.wrong(cause);
        Err(A::Error::custom(""))
    }
}

/// What an element can be made of.
trait Element: Sized {
    /// In the text of an error: "takes ...".
    const TAKES: &str;

    fn from_bool(_: bool) -> Option<Self> {
        None
    }
    fn from_unsigned(_: u64) -> Option<Self> {
        None
    }
    fn from_signed(_: i64) -> Option<Self> {
        None
    }
    fn from_float(_: f64) -> Option<Self> {
        None
    }
    fn from_text(_: &str) -> Option<Self> {
        None
    }
    fn from_null() -> Option<Self> {
        None
    }
}

macro_rules! whole_numbers {
    ($($type:ty: $takes:literal),*) => {$(
        impl Element for $type {
            const TAKES: &str = $takes;

            fn from_unsigned(value: u64) -> Option<Self> {
                Self::try_from(value).ok()
            }
            fn from_signed(value: i64) -> Option<Self> {
                Self::try_from(value).ok()
            }
        }
    )*};
}

whole_numbers!(
    i8: "whole numbers from -128 to 127",
    i16: "whole numbers from -32768 to 32767",
    i32: "whole numbers of 32 bits with a sign",
    i64: "whole numbers of 64 bits with a sign",
    u8: "whole numbers from 0 to 255",
    u16: "whole numbers from 0 to 65535",
    u32: "whole numbers of 32 bits without a sign",
    u64: "whole numbers of 64 bits without a sign"
);

impl Element for bool {
    const TAKES: &str = "true and false";

    fn from_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

/// `null` is NaN, as it is in answers: JSON has no other word for it.
impl Element for f64 {
    const TAKES: &str = "numbers";

    fn from_unsigned(value: u64) -> Option<Self> {
        Some(value as Self)
    }
    fn from_signed(value: i64) -> Option<Self> {
        Some(value as Self)
    }
    fn from_float(value: f64) -> Option<Self> {
        Some(value)
    }
    fn from_null() -> Option<Self> {
        Some(Self::NAN)
    }
}

impl Element for f32 {
    const TAKES: &str = "numbers up to 3.4e38";

    fn from_unsigned(value: u64) -> Option<Self> {
        Some(value as Self)
    }
    fn from_signed(value: i64) -> Option<Self> {
        Some(value as Self)
    }
    fn from_float(value: f64) -> Option<Self> {
        Some(value as Self).filter(|value| value.is_finite())
    }
    fn from_null() -> Option<Self> {
        Some(Self::NAN)
    }
}

impl Element for Vec<u8> {
    const TAKES: &str = "strings";

    fn from_text(value: &str) -> Option<Self> {
        Some(value.as_bytes().to_vec())
    }
}
