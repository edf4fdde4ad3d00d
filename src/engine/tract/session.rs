//! One thread's use of a loaded model: tract's state, and the buffers and choices of a run.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

use super::{convert, panic_text};
use crate::engine::kernel::Kernel;
use crate::engine::kernel::activations::NotFinite;
use crate::engine::kernel::pool::Pool;
use crate::engine::moe::experts::{self, Experts};
use crate::engine::moe::group_router;
use crate::engine::moe::nbits::{self, MatMulNBits};
use crate::engine::{LayerReport, Run, RunOptions, RunReport, Session, Signature};
use crate::infer::RunError;
use crate::tensor::Tensor as OurTensor;

/// What our operators find in tract's turn: how to compute, with what, and where to report.
pub struct RunContext {
    kernel: &'static dyn Kernel,
    pool: Arc<Pool>,
    k: Option<usize>,
    experts: experts::Workspace,
    dense: nbits::Workspace,
    router: group_router::Workspace,
    /// Reports of this run first, `reported` of them; the others are buffers for later runs.
    reports: Vec<LayerReport>,
    reported: usize,
    /// f16 inputs and outputs of an operator, as f32.
    pub floats: Floats,
}

/// What an operator's f16 numbers are widened into.
#[derive(Debug, Default)]
pub struct Floats {
    pub inputs: [Vec<f32>; 3],
    pub output: Vec<f32>,
}

impl RunContext {
    fn begin(&mut self, k: Option<usize>) {
        self.k = k;
        self.reported = 0;
    }

    fn report(&self) -> RunReport {
        let mut layers: Vec<_> = self.reports.iter().take(self.reported).cloned().collect();
        // tract runs layers that don't need each other in an order of its own.
        layers.sort_unstable_by_key(|report| report.layer);
        RunReport { layers }
    }

    /// What a router computes with.
    pub fn router(&mut self) -> (&'static dyn Kernel, &mut group_router::Workspace) {
        (self.kernel, &mut self.router)
    }

    /// Runs a layer of experts and notes what it read.
    pub fn experts(
        &mut self,
        layer: usize,
        experts: &Experts,
        x: &[f32],
        router: &[f32],
        router_weights: Option<&[f32]>,
        out: &mut [f32],
    ) -> TractResult<()> {
        let k = self.k.map_or(experts.k, |k| k.min(experts.k));
        let Self { kernel, pool, experts: workspace, reports, reported, .. } = self;
        if *reported == reports.len() {
            reports.push(LayerReport::default());
        }
        let report = &mut reports[*reported];
        experts
            .run(*kernel, pool, workspace, x, router, router_weights, k, out, &mut report.experts)
            .map_err(|error| not_finite(&experts.name, error))?;
        (report.layer, report.k) = (layer, k);
        report.weight_bytes_read = (report.experts.len() * experts.expert_bytes()) as u64;
        *reported += 1;
        Ok(())
    }

    /// Runs a dense layer.
    pub fn mat_mul_nbits(
        &mut self,
        layer: &MatMulNBits,
        x: &[f32],
        out: &mut [f32],
    ) -> TractResult<()> {
        layer
            .run(self.kernel, &self.pool, &mut self.dense, x, out)
            .map_err(|error| not_finite(&layer.name, error))
    }
}

pub fn not_finite(node: &str, NotFinite { row }: NotFinite) -> TractError {
    format_err!(
        "node `{node}`: row {row} holds an infinity or a NaN, or numbers so large that they give \
         one; check the input"
    )
}

/// A session of a tract plan.
pub struct TractSession {
    plan: Arc<TypedRunnableModel>,
    state: TypedSimpleState,
    signature: Signature,
    k_max: usize,
}

impl TractSession {
    pub fn new(
        plan: Arc<TypedRunnableModel>,
        signature: Signature,
        k_max: usize,
        kernel: &'static dyn Kernel,
        pool: Arc<Pool>,
    ) -> TractResult<Self> {
        let context = RunContext {
            kernel,
            pool,
            k: None,
            experts: experts::Workspace::default(),
            dense: nbits::Workspace::default(),
            router: group_router::Workspace::default(),
            reports: Vec::new(),
            reported: 0,
            floats: Floats::default(),
        };
        let mut state = plan.spawn()?;
        state.turn_state.shared.insert(RefCell::new(context));
        Ok(Self { plan, state, signature, k_max })
    }

    fn check(&self, inputs: &[OurTensor], options: RunOptions) -> Result<(), RunError> {
        self.signature.check(inputs)?;
        match options.k {
            Some(k) if k == 0 || k > self.k_max => {
                Err(RunError::K { k, k_min: 1, k_max: self.k_max })
            }
            _ => Ok(()),
        }
    }

    fn context(&mut self) -> Option<&mut RunContext> {
        self.state.turn_state.shared.get_mut::<RefCell<RunContext>>().map(RefCell::get_mut)
    }

    fn turn(&mut self, inputs: &[OurTensor]) -> TractResult<Vec<OurTensor>> {
        let inputs = inputs.iter().map(|input| Ok(convert::to_tract(input)?.into_tvalue()));
        let ran = self.state.run(inputs.collect::<TractResult<_>>()?);
        if ran.is_err() {
            // tract forgets a turn's dimensions only if it went well: the next turn would have to
            // have the same.
            self.state.reset_turn()?;
        }
        ran?.iter().map(|output| convert::from_tract(output)).collect()
    }

    /// A fresh state after a panic, with the old one's context.
    fn renew(&mut self) -> Result<(), RunError> {
        let context = self.state.turn_state.shared.remove::<RefCell<RunContext>>();
        let spawned = self.plan.spawn();
        let mut state =
            spawned.map_err(|cause| RunError::Panicked { journal: format!("{cause:#}") })?;
        if let Some(context) = context {
            state.turn_state.shared.insert(context);
        }
        self.state = state;
        Ok(())
    }
}

impl Session for TractSession {
    fn run(&mut self, inputs: &[OurTensor], options: RunOptions) -> Result<Run, RunError> {
        self.check(inputs, options)?;
        if let Some(context) = self.context() {
            context.begin(options.k);
        }
        let turn = catch_unwind(AssertUnwindSafe(|| self.turn(inputs)));
        let turn = turn.map_err(|panic| {
            let journal = panic_text(panic.as_ref()).to_owned();
            match self.renew() {
                Ok(()) => RunError::Panicked { journal },
                Err(error) => error,
            }
        })?;
        let outputs = turn.map_err(|cause| {
            // tract says which node first; its cause is what a sender can use.
            RunError::Model { cause: cause.root_cause().to_string() }
        })?;
        let report = self.context().map(|context| context.report());
        Ok(Run { outputs, report: report.unwrap_or_default() })
    }
}
