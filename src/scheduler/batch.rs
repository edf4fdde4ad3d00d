//! Several requests in one run: joined along the first dimension, and taken apart again.
//!
//! Pure functions on tensors. Only graphs whose every input and output begins with the same open
//! dimension, and call it a batch, are taken: where rows look at each other, as the words of a
//! sentence do, joining would change the answers.

use crate::engine::{Dim, Port, Signature};
use crate::tensor::{Data, Tensor, TensorError};

/// Whether requests to this graph may be joined.
pub fn is_batchable(signature: &Signature) -> bool {
    let first = |port: &Port| match port.dims.first() {
        Some(Dim::Named(name)) => Some(name.clone()),
        _ => None,
    };
    let Some(batch) = signature.inputs.first().and_then(first) else { return false };
    let word = batch.to_ascii_lowercase();
    let is_batch = word == "n" || word.contains("batch");
    is_batch
        && signature.inputs.iter().chain(&signature.outputs).all(|port| {
            let open = port.dims.iter().skip(1).all(|dim| *dim != Dim::Named(batch.clone()));
            first(port).as_ref() == Some(&batch) && open
        })
}

/// Rows of a request's inputs.
pub fn rows(inputs: &[Tensor]) -> usize {
    inputs.first().and_then(|input| input.shape().dims().first()).copied().unwrap_or(0)
}

/// Whether two requests' inputs differ in the number of rows at most.
pub fn fit(a: &[Tensor], b: &[Tensor]) -> bool {
    let all_rows = |inputs: &[Tensor]| {
        inputs.iter().all(|input| input.shape().dims().first() == Some(&rows(inputs)))
    };
    let same = |(a, b): (&Tensor, &Tensor)| {
        a.dtype() == b.dtype() && a.shape().dims().get(1..) == b.shape().dims().get(1..)
    };
    a.len() == b.len() && all_rows(a) && all_rows(b) && a.iter().zip(b).all(same)
}

/// Joins the inputs of requests that [`fit`].
pub fn join(requests: &[&[Tensor]]) -> Result<Vec<Tensor>, TensorError> {
    let inputs = requests.first().map_or(0, |inputs| inputs.len());
    let column = |i: usize| requests.iter().filter_map(move |inputs| inputs.get(i));
    (0..inputs).map(|i| join_column(&column(i).collect::<Vec<_>>())).collect()
}

/// Takes outputs apart: for each request, `rows` of each. `None` if they don't have as many.
pub fn split(outputs: &[Tensor], rows: &[usize]) -> Option<Vec<Vec<Tensor>>> {
    let total: usize = rows.iter().sum();
    if outputs.iter().any(|output| output.shape().dims().first() != Some(&total)) {
        return None;
    }
    let mut start = 0;
    let each = rows.iter().map(|&count| {
        let from = start;
        start += count;
        outputs.iter().map(|output| part(output, total, from, count)).collect()
    });
    each.collect()
}

/// Calls `$body` with the elements of `$data`, whatever their type, and wraps what it gives again.
macro_rules! with_elements {
    ($data:expr, $elements:ident => $body:expr) => {
        match $data {
            Data::Bool($elements) => Data::Bool($body),
            Data::I8($elements) => Data::I8($body),
            Data::I16($elements) => Data::I16($body),
            Data::I32($elements) => Data::I32($body),
            Data::I64($elements) => Data::I64($body),
            Data::U8($elements) => Data::U8($body),
            Data::U16($elements) => Data::U16($body),
            Data::U32($elements) => Data::U32($body),
            Data::U64($elements) => Data::U64($body),
            Data::F16($elements) => Data::F16($body),
            Data::F32($elements) => Data::F32($body),
            Data::F64($elements) => Data::F64($body),
            Data::Bytes($elements) => Data::Bytes($body),
        }
    };
}

fn join_column(tensors: &[&Tensor]) -> Result<Tensor, TensorError> {
    let Some((first, rest)) = tensors.split_first() else {
        return Tensor::new(&[0], Data::U8(Vec::new()));
    };
    let mut dims = first.shape().dims().to_vec();
    let sizes = tensors.iter().filter_map(|tensor| tensor.shape().dims().first());
    if let Some(size) = dims.first_mut() {
        *size = sizes.sum();
    }
    let mut data = first.data().clone();
    for tensor in rest {
        append(&mut data, tensor.data());
    }
    // What could not be appended is missed here: the length would not be that of the shape.
    Tensor::new(&dims, data)
}

fn append(to: &mut Data, from: &Data) {
    macro_rules! same_type {
        ($($variant:ident)*) => {
            match (to, from) {
                $((Data::$variant(to), Data::$variant(from)) => to.extend_from_slice(from),)*
                _ => {}
            }
        };
    }
    same_type!(Bool I8 I16 I32 I64 U8 U16 U32 U64 F16 F32 F64 Bytes);
}

fn part(tensor: &Tensor, total: usize, start: usize, count: usize) -> Option<Tensor> {
    let mut dims = tensor.shape().dims().to_vec();
    *dims.first_mut()? = count;
    let row = tensor.shape().elements().checked_div(total)?;
    let range = start * row..(start + count) * row;
    let data = with_elements!(tensor.data(), elements => elements.get(range)?.to_vec());
    Tensor::new(&dims, data).ok()
}
