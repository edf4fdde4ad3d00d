//! The classification extension: the largest values of an output, each as `value:index`.

use crate::tensor::{Data, Tensor};

/// The `classes` largest of each row, largest first, of equals the first; a tensor of rank 0 or 1
/// is one row. Rows are batches: all dimensions behind the first count as one. `None`: its
/// elements are no numbers.
pub(super) fn classify(tensor: &Tensor, classes: usize) -> Option<(Vec<usize>, Vec<String>)> {
    let dims = tensor.shape().dims();
    let (batch, row) = match dims {
        [] | [_] => (None, tensor.shape().elements()),
        [batch, rest @ ..] => (Some(*batch), rest.iter().product()),
    };
    let classes = classes.min(row);
    let value = numbers(tensor.data())?;
    let mut out = Vec::with_capacity(batch.unwrap_or(1) * classes);
    for start in (0..batch.unwrap_or(1)).map(|at| at * row) {
        let mut order: Vec<usize> = (0..row).collect();
        let largest_first =
            |a: &usize, b: &usize| value(start + b).total_cmp(&value(start + a)).then(a.cmp(b));
        if classes < row {
            order.select_nth_unstable_by(classes, largest_first);
            order.truncate(classes);
        }
        order.sort_unstable_by(largest_first);
        out.extend(order.iter().map(|&at| format!("{:.6}:{at}", value(start + at))));
    }
    let dims = batch.into_iter().chain([classes]).collect();
    Some((dims, out))
}

/// The elements as numbers, by index.
fn numbers(data: &Data) -> Option<Box<dyn Fn(usize) -> f64 + '_>> {
    macro_rules! at {
        ($values:ident, $to:expr) => {
            Some(Box::new(move |at| $values.get(at).map_or(f64::NAN, $to)))
        };
    }
    match data {
        Data::I8(values) => at!(values, |&x| f64::from(x)),
        Data::I16(values) => at!(values, |&x| f64::from(x)),
        Data::I32(values) => at!(values, |&x| f64::from(x)),
        Data::I64(values) => at!(values, |&x| x as f64),
        Data::U8(values) => at!(values, |&x| f64::from(x)),
        Data::U16(values) => at!(values, |&x| f64::from(x)),
        Data::U32(values) => at!(values, |&x| f64::from(x)),
        Data::U64(values) => at!(values, |&x| x as f64),
        Data::F16(values) => at!(values, |&x| f64::from(x)),
        Data::F32(values) => at!(values, |&x| f64::from(x)),
        Data::F64(values) => at!(values, |&x| x),
        Data::Bool(_) | Data::Bytes(_) => None,
    }
}
