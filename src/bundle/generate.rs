//! Numbers for golden answers: inputs that a seed and a name give again on every machine.
//!
//! The generator is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), seeded with the seed and the
//! input's name. Floats are from -1 to 1; whole numbers are 0 or 1, which are good as ids, masks
//! and flags alike.

use half::f16;

use crate::tensor::{DType, Data, Shape, Tensor};

const ELEMENTS_MAX: usize = 1 << 22;

const DTYPES: [(DType, &str); 12] = [
    (DType::Bool, "BOOL"),
    (DType::I8, "I8"),
    (DType::I16, "I16"),
    (DType::I32, "I32"),
    (DType::I64, "I64"),
    (DType::U8, "U8"),
    (DType::U16, "U16"),
    (DType::U32, "U32"),
    (DType::U64, "U64"),
    (DType::F16, "F16"),
    (DType::F32, "F32"),
    (DType::F64, "F64"),
];

/// The type of that name; `None` also for texts, which can't be made up.
pub fn dtype(name: &str) -> Option<DType> {
    DTYPES.iter().find(|(_, other)| *other == name).map(|(dtype, _)| *dtype)
}

/// The name of a type; `None` for texts.
pub fn dtype_name(dtype: DType) -> Option<&'static str> {
    DTYPES.iter().find(|(other, _)| *other == dtype).map(|(_, name)| *name)
}

struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn bit(&mut self) -> u8 {
        u8::from(self.next() >> 63 == 1)
    }

    /// -1 to 1, in steps of 2^-23, so that it is exact as f32.
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit in an f32")]
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// The input `name` of the case `seed`.
pub fn tensor(seed: u64, name: &str, dtype: DType, dims: &[usize]) -> Result<Tensor, String> {
    let wrong = |cause: String| format!("input `{name}`: {cause}");
    let shape = Shape::new(dims).map_err(|error| wrong(error.to_string()))?;
    let n = shape.elements();
    if n > ELEMENTS_MAX {
        return Err(wrong(format!("{n} elements; at most {ELEMENTS_MAX} are allowed")));
    }
    let mut state = SplitMix64(seed);
    for byte in name.bytes() {
        state = SplitMix64(state.next() ^ u64::from(byte));
    }
    let data = match dtype {
        DType::Bool => Data::Bool((0..n).map(|_| state.bit() == 1).collect()),
        DType::I8 => Data::I8((0..n).map(|_| i8::from(state.bit() == 1)).collect()),
        DType::I16 => Data::I16((0..n).map(|_| state.bit().into()).collect()),
        DType::I32 => Data::I32((0..n).map(|_| state.bit().into()).collect()),
        DType::I64 => Data::I64((0..n).map(|_| state.bit().into()).collect()),
        DType::U8 => Data::U8((0..n).map(|_| state.bit()).collect()),
        DType::U16 => Data::U16((0..n).map(|_| state.bit().into()).collect()),
        DType::U32 => Data::U32((0..n).map(|_| state.bit().into()).collect()),
        DType::U64 => Data::U64((0..n).map(|_| state.bit().into()).collect()),
        DType::F16 => Data::F16((0..n).map(|_| f16::from_f32(state.float())).collect()),
        DType::F32 => Data::F32((0..n).map(|_| state.float()).collect()),
        DType::F64 => Data::F64((0..n).map(|_| state.float().into()).collect()),
        DType::Bytes => return Err(wrong("a text: no answer can be recorded for one".to_owned())),
    };
    Tensor::new(dims, data).map_err(|error| wrong(error.to_string()))
}

/// The elements as they are recorded.
#[expect(clippy::cast_precision_loss, reason = "JSON has no wider numbers")]
pub fn numbers(tensor: &Tensor) -> Result<Vec<f64>, String> {
    Ok(match tensor.data() {
        Data::Bool(data) => data.iter().map(|&x| f64::from(u8::from(x))).collect(),
        Data::I8(data) => data.iter().map(|&x| x.into()).collect(),
        Data::I16(data) => data.iter().map(|&x| x.into()).collect(),
        Data::I32(data) => data.iter().map(|&x| x.into()).collect(),
        Data::I64(data) => data.iter().map(|&x| x as f64).collect(),
        Data::U8(data) => data.iter().map(|&x| x.into()).collect(),
        Data::U16(data) => data.iter().map(|&x| x.into()).collect(),
        Data::U32(data) => data.iter().map(|&x| x.into()).collect(),
        Data::U64(data) => data.iter().map(|&x| x as f64).collect(),
        Data::F16(data) => data.iter().map(|&x| x.into()).collect(),
        Data::F32(data) => data.iter().map(|&x| x.into()).collect(),
        Data::F64(data) => data.clone(),
        Data::Bytes(_) => return Err("a text: no answer can be recorded for one".to_owned()),
    })
}
