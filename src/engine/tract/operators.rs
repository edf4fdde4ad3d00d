//! Our operators as tract's: shapes, types, costs, and the call.
//!
//! tract makes operators through plain functions that can carry no state, so the parsed ones wait
//! in a thread-local list while [`super::build`]'s thread parses the graph.

use std::cell::RefCell;
use std::sync::Arc;

use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::session::{Floats, RunContext, not_finite};
use crate::engine::LayerInfo;
use crate::engine::moe::experts::Experts;
use crate::engine::moe::group_router::GroupRouter;
use crate::engine::moe::nbits::MatMulNBits;
use crate::engine::moe::projection::Projection;

/// The operator type that `hoist` leaves in the graph. No model can have it: `inspect` refuses
/// names with a dot.
pub const OPERATOR: &str = "moed.Operator";
/// Its attribute: which of the parsed operators it is.
pub const OPERATOR_INDEX: &str = "index";

/// A parsed operator, shared by all sessions of a model.
#[derive(Debug, Clone)]
pub enum Operator {
    /// `layer`: its place among the layers of experts, by which a run reports it.
    Experts {
        layer: usize,
        experts: Arc<Experts>,
    },
    MatMulNBits(Arc<MatMulNBits>),
    GroupRouter {
        router: Arc<GroupRouter>,
        full_scores: bool,
    },
}

impl PartialEq for Operator {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Experts { experts: a, .. }, Self::Experts { experts: b, .. }) => {
                Arc::ptr_eq(a, b)
            }
            (Self::MatMulNBits(a), Self::MatMulNBits(b)) => Arc::ptr_eq(a, b),
            (Self::GroupRouter { router: a, .. }, Self::GroupRouter { router: b, .. }) => {
                Arc::ptr_eq(a, b)
            }
            _ => false,
        }
    }
}

impl Eq for Operator {}

impl Operator {
    /// What a run's report calls it, if it is a layer of experts.
    pub fn layer_info(&self) -> Option<LayerInfo> {
        match self {
            Self::Experts { experts, .. } => Some(LayerInfo {
                name: experts.name.clone(),
                experts: experts.experts,
                k: experts.k,
                expert_bytes: experts.expert_bytes() as u64,
            }),
            Self::MatMulNBits(_) | Self::GroupRouter { .. } => None,
        }
    }
}

thread_local! {
    static PARSED: RefCell<Vec<Operator>> = const { RefCell::new(Vec::new()) };
}

/// Teaches `onnx` the operators, for models that this thread parses.
pub fn register(onnx: &mut Onnx, operators: Vec<Operator>) {
    PARSED.set(operators);
    onnx.op_register.insert(OPERATOR, make);
}

fn make(
    _context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let index: usize = node.get_attr(OPERATOR_INDEX)?;
    let operator = PARSED.with_borrow(|operators| operators.get(index).cloned());
    let operator = operator.with_context(|| format!("operator {index}: not parsed"))?;
    Ok((expand(operator), vec![]))
}

impl Expansion for Operator {
    fn name(&self) -> StaticName {
        match self {
            Self::Experts { experts, .. } => experts.operator.into(),
            Self::MatMulNBits(_) => "MatMulNBits".into(),
            Self::GroupRouter { .. } => "MoEGroupRouter".into(),
        }
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(match self {
            Self::GroupRouter { full_scores: true, .. } => 2,
            _ => 1,
        })
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        match self {
            Self::Experts { .. } => {
                solver.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
                solver.equals(&outputs[0].shape, &inputs[0].shape)?;
            }
            Self::MatMulNBits(layer) => {
                solver.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
                solver.equals(&outputs[0].rank, &inputs[0].rank)?;
                let n = layer.projection.n.to_dim();
                solver.given(&inputs[0].rank, move |solver, rank| {
                    let last = rank as usize - 1;
                    for axis in 0..last {
                        solver.equals(&outputs[0].shape[axis], &inputs[0].shape[axis])?;
                    }
                    solver.equals(&outputs[0].shape[last], n.clone())
                })?;
            }
            Self::GroupRouter { router, full_scores } => {
                let experts = router.bias.len().to_dim();
                for output in outputs {
                    solver.equals(&output.rank, 2)?;
                    solver.equals(&output.shape[1], experts.clone())?;
                    if *full_scores {
                        solver.equals(&output.datum_type, f32::datum_type())?;
                    } else {
                        solver.equals(&output.datum_type, &inputs[0].datum_type)?;
                    }
                }
                solver.given(&inputs[0].shape, move |solver, shape| {
                    let rows: TDim = shape[..shape.len().saturating_sub(1)].iter().product();
                    for output in outputs {
                        solver.equals(&output.shape[0], rows.clone())?;
                    }
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        self.check(model, inputs)?;
        model.wire_node(prefix, self.clone(), inputs)
    }
}

impl Operator {
    /// Refuses inputs whose known dimensions or types don't fit.
    fn check(&self, model: &TypedModel, inputs: &[OutletId]) -> TractResult<()> {
        let (width, ranks) = match self {
            Self::Experts { experts, .. } => (experts.hidden, 2..=3),
            Self::MatMulNBits(layer) => (layer.projection.k, 1..=8),
            Self::GroupRouter { router, .. } => (router.width(), 2..=8),
        };
        let node = self.name_of_node();
        let (given, needed) = (inputs.len(), self.run_time_inputs());
        ensure!(needed.contains(&given), "{node}: {given} inputs, not {needed:?}");
        check_input(&node, "x", model.outlet_fact(inputs[0])?, width, ranks)?;
        if let Self::Experts { experts, .. } = self {
            for (input, role) in inputs[1..].iter().zip(["router_probs", "router_weights"]) {
                let fact = model.outlet_fact(*input)?;
                check_input(&node, role, fact, experts.experts, 2..=2)?;
            }
        }
        Ok(())
    }

    /// How many inputs are left when the weights are gone.
    fn run_time_inputs(&self) -> std::ops::RangeInclusive<usize> {
        match self {
            Self::Experts { .. } => 2..=3,
            Self::MatMulNBits(_) | Self::GroupRouter { .. } => 1..=1,
        }
    }

    fn name_of_node(&self) -> String {
        let (operator, name) = match self {
            Self::Experts { experts, .. } => (experts.operator, &experts.name),
            Self::MatMulNBits(layer) => ("MatMulNBits", &layer.name),
            Self::GroupRouter { router, .. } => ("MoEGroupRouter", &router.name),
        };
        format!("{operator} node `{name}`")
    }

    fn width_out(&self) -> usize {
        match self {
            Self::Experts { experts, .. } => experts.hidden,
            Self::MatMulNBits(layer) => layer.projection.n,
            Self::GroupRouter { router, .. } => router.bias.len(),
        }
    }
}

impl Op for Operator {
    fn name(&self) -> StaticName {
        Expansion::name(self)
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![match self {
            Self::Experts { experts, .. } => {
                let Experts { k, experts, hidden, inter, .. } = experts.as_ref();
                format!("top-{k} of {experts} experts, {hidden} x {inter}")
            }
            Self::MatMulNBits(layer) => {
                let Projection { n, k, .. } = layer.projection;
                format!("{k} -> {n}")
            }
            Self::GroupRouter { router, .. } => {
                format!("top-{} of {}", router.top_k, router.bias.len())
            }
        }])
    }

    op_as_typed_op!();
}

impl EvalOp for Operator {
    not_out_of_plan!();

    /// Allocates what tract wants, the outputs, and nothing else.
    fn eval(&self, context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let run = context.shared.and_then(|shared| shared.get::<RefCell<RunContext>>());
        let mut run = run.context("run outside a session")?.try_borrow_mut()?;
        let mut floats = std::mem::take(&mut run.floats);
        let outputs = self.eval_with(&mut run, &mut floats, &inputs);
        run.floats = floats;
        outputs
    }
}

impl Operator {
    fn eval_with(
        &self,
        run: &mut RunContext,
        floats: &mut Floats,
        inputs: &[TValue],
    ) -> TractResult<TVec<TValue>> {
        let datum_type = inputs[0].datum_type();
        let Floats { inputs: [x, router, weights], output } = floats;
        let x = widened(&inputs[0], x)?;
        let mut shape: TVec<usize> = inputs[0].shape().into();
        *shape.last_mut().context("rank 0")? = self.width_out();
        match self {
            Self::Experts { layer, experts } => {
                let router = widened(&inputs[1], router)?;
                let weights = inputs.get(2).map(|given| widened(given, weights)).transpose()?;
                let rows = x.len() / experts.hidden;
                for given in std::iter::once(router).chain(weights) {
                    ensure!(
                        given.len() == rows * experts.experts,
                        "router of node `{}`: {} logits for {rows} rows and {} experts",
                        experts.name,
                        given.len(),
                        experts.experts
                    );
                }
                Ok(tvec!(filled(&shape, datum_type, output, |out| {
                    run.experts(*layer, experts, x, router, weights, out)
                })?))
            }
            Self::MatMulNBits(matrix) => Ok(tvec!(filled(&shape, datum_type, output, |out| {
                run.mat_mul_nbits(matrix, x, out)
            })?)),
            Self::GroupRouter { router, full_scores } => {
                let (kernel, workspace) = run.router();
                let shape = [x.len() / router.width(), self.width_out()];
                if !full_scores {
                    return Ok(tvec!(filled(&shape, datum_type, output, |out| {
                        let routed = router.route(kernel, workspace, x, out);
                        routed.map_err(|error| not_finite(&router.name, error))
                    })?));
                }
                let mut selection = Tensor::zero::<f32>(&shape)?;
                let mut weights = Tensor::zero::<f32>(&shape)?;
                let mut plain = selection.try_as_plain_ram_mut()?;
                let mut other = weights.try_as_plain_ram_mut()?;
                let (scores, biased) = (other.as_slice_mut()?, plain.as_slice_mut()?);
                router.full_scores(kernel, workspace, x, biased, scores);
                Ok(tvec!(selection.into_tvalue(), weights.into_tvalue()))
            }
        }
    }
}

fn check_input(
    node: &str,
    role: &str,
    fact: &TypedFact,
    width: usize,
    ranks: std::ops::RangeInclusive<usize>,
) -> TractResult<()> {
    let (rank, datum_type) = (fact.rank(), fact.datum_type);
    let types = [f32::datum_type(), f16::datum_type()];
    ensure!(types.contains(&datum_type), "{node}: input {role}: {datum_type:?}: not f32 or f16");
    ensure!(ranks.contains(&rank), "{node}: input {role}: rank {rank}: {ranks:?} was expected");
    let last = &fact.shape[rank - 1];
    ensure!(
        last.to_usize().is_ok_and(|last| last == width),
        "{node}: input {role}: last dimension {last}: {width} was expected"
    );
    Ok(())
}

/// The elements as f32: in place where they are, else widened into `buffer`.
fn widened<'a>(value: &'a TValue, buffer: &'a mut Vec<f32>) -> TractResult<&'a [f32]> {
    if value.datum_type() == f32::datum_type() {
        return value.as_slice_of::<f32>();
    }
    buffer.clear();
    buffer.extend(value.as_slice_of::<f16>()?.iter().map(|x| x.to_f32()));
    Ok(buffer)
}

/// A tensor of `datum_type` (f32 or f16) with the elements that `fill` writes over zeros.
fn filled(
    shape: &[usize],
    datum_type: DatumType,
    buffer: &mut Vec<f32>,
    fill: impl FnOnce(&mut [f32]) -> TractResult<()>,
) -> TractResult<TValue> {
    if datum_type == f32::datum_type() {
        let mut tensor = Tensor::zero::<f32>(shape)?;
        fill(tensor.try_as_plain_ram_mut()?.as_slice_mut()?)?;
        return Ok(tensor.into_tvalue());
    }
    buffer.clear();
    buffer.resize(shape.iter().product(), 0.0);
    fill(buffer)?;
    let mut tensor = Tensor::zero::<f16>(shape)?;
    let mut plain = tensor.try_as_plain_ram_mut()?;
    for (to, from) in plain.as_slice_mut::<f16>()?.iter_mut().zip(buffer) {
        *to = f16::from_f32(*from);
    }
    Ok(tensor.into_tvalue())
}

/// Elements of a plain tensor.
trait PlainSlice {
    fn as_slice_of<T: Datum>(&self) -> TractResult<&[T]>;
}

impl PlainSlice for TValue {
    fn as_slice_of<T: Datum>(&self) -> TractResult<&[T]> {
        self.try_as_plain_ram()?.as_slice::<T>()
    }
}

impl TypedOp for Operator {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let x = inputs[0];
        Ok(match self {
            Self::Experts { .. } => tvec!(x.without_value()),
            Self::MatMulNBits(_) => {
                let mut shape: TVec<TDim> = x.shape.iter().cloned().collect();
                *shape.last_mut().context("rank 0")? = self.width_out().to_dim();
                tvec!(x.datum_type.fact(&*shape))
            }
            Self::GroupRouter { full_scores, .. } => {
                let rows: TDim = x.shape.iter().take(x.rank() - 1).product();
                let shape = [rows, self.width_out().to_dim()];
                if *full_scores {
                    let f32 = f32::datum_type();
                    tvec!(f32.fact(&shape), f32.fact(&shape))
                } else {
                    tvec!(x.datum_type.fact(&shape))
                }
            }
        })
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let rows: TDim = inputs[0].shape.iter().take(inputs[0].rank() - 1).product();
        let per_row = match self {
            Self::Experts { experts, .. } => {
                let weights = |projection: &Projection| projection.n * projection.k;
                let fc3 = experts.fc3.as_ref().map_or(0, weights);
                experts.k * (weights(&experts.fc1) + weights(&experts.fc2) + fc3)
            }
            Self::MatMulNBits(layer) => layer.projection.n * layer.projection.k,
            Self::GroupRouter { .. } => 0,
        };
        Ok(tvec!((Cost::FMA(f32::datum_type()), rows * per_row as i64)))
    }
}
