//! `golden.json`: recorded answers that a model must give again before it is trusted.
//!
//! An intent's cases say what lies between sentence and answer too, so that a fault is found where
//! it is. A tensor model's cases hold no inputs but a seed: see [`generate`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BundleError, generate};
use crate::engine::{RunOptions, Session};
use crate::infer::{NamedTensor, Output, RunError};
use crate::pipeline::intent::{Tag, Word};
use crate::pipeline::{Pipeline, Prepared, Task};
use crate::tensor::{DType, Data, Tensor};

const CASES_MAX: usize = 256;

/// The cases of a bundle.
#[derive(Debug, Clone, PartialEq)]
pub enum Golden {
    Tensor(Vec<TensorCase>),
    Intent(Vec<IntentCase>),
}

/// What a model of task `tensor` gave for inputs made from a seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorCase {
    pub seed: u64,
    /// By name.
    pub inputs: BTreeMap<String, GoldenInput>,
    /// By name.
    pub outputs: BTreeMap<String, GoldenOutput>,
    /// The largest error, as a part of the root mean square of what is recorded of an output.
    pub tolerance: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenInput {
    /// `F32`, `I64`, ...
    pub dtype: String,
    pub dims: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenOutput {
    pub dims: Vec<usize>,
    /// One element of how many is recorded, beginning with the first.
    pub every: usize,
    pub values: Vec<f64>,
}

/// What a model of task `intent` gave for a sentence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntentCase {
    pub text: String,
    /// For each word, the ids of its n-grams.
    pub ids: Vec<Vec<i64>>,
    pub budget: f32,
    pub intent: String,
    /// For each word.
    pub tags: Vec<String>,
    pub confidence: f32,
    pub intent_logits: Vec<f32>,
    /// How many experts the model chose for the sentence, if its graph says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k: Option<f32>,
}

/// The largest error of a logit of an intent.
const LOGIT_ERROR_MAX: f32 = 0.05;
/// The largest error of an intent's confidence.
const CONFIDENCE_ERROR_MAX: f32 = 0.02;

/// That all answers were given again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reproduced {
    pub cases: usize,
    /// The largest error there was, as a part of the tolerance.
    pub error_max: f64,
}

impl Golden {
    /// Reads the cases of a model of this task.
    pub fn parse(text: &str, task: &Task) -> Result<Self, BundleError> {
        let wrong =
            |error: serde_json::Error| BundleError::Golden(format!("{error}; record again"));
        let golden = match task {
            Task::Tensor => Self::Tensor(serde_json::from_str(text).map_err(wrong)?),
            Task::Intent(_) => Self::Intent(serde_json::from_str(text).map_err(wrong)?),
        };
        let cases = golden.cases();
        if cases == 0 || cases > CASES_MAX {
            let cause = format!("{cases} cases; 1 to {CASES_MAX} are allowed");
            return Err(BundleError::Golden(cause));
        }
        Ok(golden)
    }

    pub fn cases(&self) -> usize {
        match self {
            Self::Tensor(cases) => cases.len(),
            Self::Intent(cases) => cases.len(),
        }
    }

    /// What each case asks, as a client would.
    ///
    /// # Errors
    /// Names the first case that can't be made.
    pub fn questions(&self) -> Result<Vec<Vec<NamedTensor>>, BundleError> {
        let wrong = |cause: String| BundleError::Golden(cause);
        match self {
            Self::Tensor(cases) => cases.iter().map(|case| case.inputs().map_err(wrong)).collect(),
            Self::Intent(cases) => cases.iter().map(|case| case.inputs().map_err(wrong)).collect(),
        }
    }

    /// Runs every case and compares.
    ///
    /// # Errors
    /// Names the first case that differs, and in what.
    pub fn check(
        &self,
        pipeline: &Pipeline,
        session: &mut dyn Session,
    ) -> Result<Reproduced, BundleError> {
        let mut error_max: f64 = 0.0;
        let mut note = |case: usize, result: Result<f64, String>| {
            let failed = |cause| BundleError::Golden(format!("case {case}: {cause}"));
            result.map(|error| error_max = error_max.max(error)).map_err(failed)
        };
        match self {
            Self::Tensor(cases) => {
                for (i, case) in cases.iter().enumerate() {
                    note(i, case.check(pipeline, session))?;
                }
            }
            Self::Intent(cases) => {
                for (i, case) in cases.iter().enumerate() {
                    note(i, case.check(pipeline, session))?;
                }
            }
        }
        Ok(Reproduced { cases: self.cases(), error_max })
    }
}

impl TensorCase {
    fn inputs(&self) -> Result<Vec<NamedTensor>, String> {
        let inputs = self.inputs.iter().map(|(name, input)| {
            let dtype = generate::dtype(&input.dtype)
                .ok_or_else(|| format!("input `{name}`: type `{}`: not known", input.dtype))?;
            let tensor = generate::tensor(self.seed, name, dtype, &input.dims)?;
            Ok(NamedTensor { name: name.clone(), tensor })
        });
        inputs.collect()
    }

    fn check(&self, pipeline: &Pipeline, session: &mut dyn Session) -> Result<f64, String> {
        let outputs = run(pipeline, session, self.inputs()?, None)?;
        let mut error_max: f64 = 0.0;
        for (name, wanted) in &self.outputs {
            let found = outputs.iter().find(|output| *output.name == **name);
            let found = found.ok_or_else(|| format!("output `{name}`: the model gives none"))?;
            let error = wanted.compare(&found.tensor, self.tolerance);
            error_max = error_max.max(error.map_err(|cause| format!("output `{name}`: {cause}"))?);
        }
        Ok(error_max)
    }
}

impl GoldenOutput {
    fn compare(&self, found: &Tensor, tolerance: f64) -> Result<f64, String> {
        if found.shape().dims() != self.dims {
            return Err(format!("{:?} instead of {:?}", found.shape().dims(), self.dims));
        }
        let all = generate::numbers(found)?;
        let values: Vec<f64> = all.iter().copied().step_by(self.every.max(1)).collect();
        if values.len() != self.values.len() {
            let (found, wanted) = (values.len(), self.values.len());
            return Err(format!("{wanted} values are recorded, not {found}; record again"));
        }
        let squares: f64 = self.values.iter().map(|value| value * value).sum();
        #[expect(clippy::cast_precision_loss, reason = "a count, for a mean")]
        let rms = (squares / values.len().max(1) as f64).sqrt();
        // Whole numbers, and an output of zeros, must be equal.
        let is_float = matches!(found.dtype(), DType::F16 | DType::F32 | DType::F64);
        let allowed = if is_float { tolerance * rms } else { 0.0 };
        let mut error_max: f64 = 0.0;
        for (i, (found, wanted)) in values.iter().zip(&self.values).enumerate() {
            let error = (found - wanted).abs();
            // Written so that a NaN is not let through.
            let is_close = error <= allowed;
            if !is_close {
                let at = i.saturating_mul(self.every.max(1));
                return Err(format!("element {at}: {found} instead of {wanted} +- {allowed}"));
            }
            error_max = error_max.max(if allowed > 0.0 { error / allowed } else { 0.0 });
        }
        Ok(error_max)
    }
}

impl IntentCase {
    fn inputs(&self) -> Result<Vec<NamedTensor>, String> {
        let data = Data::Bytes(vec![self.text.as_bytes().to_vec()]);
        let tensor = Tensor::new(&[1], data).map_err(|error| error.to_string())?;
        Ok(vec![NamedTensor { name: "text".to_owned(), tensor }])
    }

    fn check(&self, pipeline: &Pipeline, session: &mut dyn Session) -> Result<f64, String> {
        let steps = pipeline.intent().ok_or("the pipeline is not of task `intent`")?;
        let prepared = pipeline.prepare(self.inputs()?, Some(self.budget));
        let Prepared { inputs, kept } = prepared.map_err(|error| error.to_string())?;
        let sentence = kept.sentence().ok_or("the pipeline is not of task `intent`")?;
        self.compare_ids(&steps.ids(sentence), &sentence.words)?;
        let run = session.run(&inputs, RunOptions::default()).map_err(|error| error.to_string())?;
        let text = |error: RunError| error.to_string();
        if let Some(wanted) = self.k {
            let found = steps.k(&run.outputs);
            if found != Some(wanted) {
                return Err(format!("k: {found:?} instead of {wanted}"));
            }
        }
        let logits = steps.intent_logits(&run.outputs).map_err(text)?;
        let logit_error = self.compare_logits(logits)?;
        let reading = steps.reading(sentence, &run.outputs).map_err(text)?;
        if reading.intent != self.intent {
            return Err(format!("intent: {} instead of {}", reading.intent, self.intent));
        }
        let tags = steps.tags(sentence, &run.outputs).map_err(text)?;
        let tags: Vec<_> = tags.into_iter().map(Tag::text).collect();
        if tags != self.tags {
            return Err(format!("tags: {} instead of {}", tags.join(" "), self.tags.join(" ")));
        }
        let error = (reading.confidence - self.confidence).abs();
        if is_over(error, CONFIDENCE_ERROR_MAX) {
            let (found, wanted) = (reading.confidence, self.confidence);
            return Err(format!(
                "confidence: {found:.2} instead of {wanted} +- {CONFIDENCE_ERROR_MAX}"
            ));
        }
        pipeline.finish(&kept, run.outputs).map_err(text)?;
        Ok(f64::from((error / CONFIDENCE_ERROR_MAX).max(logit_error / LOGIT_ERROR_MAX)))
    }

    fn compare_ids(&self, ids: &[i64], words: &[Word]) -> Result<(), String> {
        if words.len() != self.ids.len() {
            return Err(format!("ids: {} words instead of {}", words.len(), self.ids.len()));
        }
        let rows = ids.chunks_exact((ids.len() / words.len().max(1)).max(1));
        for ((found, wanted), word) in rows.zip(&self.ids).zip(words) {
            if found != wanted {
                return Err(format!("ids of `{}`: {found:?} instead of {wanted:?}", word.text));
            }
        }
        Ok(())
    }

    fn compare_logits(&self, logits: &[f32]) -> Result<f32, String> {
        if logits.len() != self.intent_logits.len() {
            let (found, wanted) = (logits.len(), self.intent_logits.len());
            return Err(format!("intent_logits: {found} instead of {wanted}"));
        }
        let mut error_max: f32 = 0.0;
        for (i, (found, wanted)) in logits.iter().zip(&self.intent_logits).enumerate() {
            let error = (found - wanted).abs();
            if is_over(error, LOGIT_ERROR_MAX) {
                return Err(format!(
                    "intent_logits[{i}]: {found:.2} instead of {wanted} +- {LOGIT_ERROR_MAX}"
                ));
            }
            error_max = error_max.max(error);
        }
        Ok(error_max)
    }
}

/// A NaN is over everything.
fn is_over(error: f32, max: f32) -> bool {
    error > max || error.is_nan()
}

/// Runs a request through pipeline and model.
pub fn run(
    pipeline: &Pipeline,
    session: &mut dyn Session,
    inputs: Vec<NamedTensor>,
    budget: Option<f32>,
) -> Result<Vec<Output>, String> {
    let text = |error: RunError| error.to_string();
    let prepared = pipeline.prepare(inputs, budget).map_err(text)?;
    let run = session.run(&prepared.inputs, RunOptions::default()).map_err(text)?;
    pipeline.finish(&prepared.kept, run.outputs).map_err(text)
}
