//! The task `tensor`: what clients give is what the graph takes, found by name.

use std::sync::Arc;

use super::{Signature, budget_tensor, input_error, is_budget};
use crate::infer::{Content, NamedTensor, Output, RunError};
use crate::tensor::Tensor;

/// Puts inputs in the graph's order and gives its outputs their names.
#[derive(Debug, Clone)]
pub struct Steps {
    graph: Signature,
}

impl Steps {
    pub fn new(graph: &Signature) -> Self {
        Self { graph: graph.clone() }
    }

    pub fn signature(&self) -> Signature {
        let mut signature = self.graph.clone();
        for input in &mut signature.inputs {
            input.is_optional = is_budget(input);
        }
        signature
    }

    pub fn prepare(
        &self,
        inputs: Vec<NamedTensor>,
        budget: Option<f32>,
    ) -> Result<Vec<Tensor>, RunError> {
        let mut places: Vec<Option<Tensor>> = Vec::new();
        places.resize_with(self.graph.inputs.len(), || None);
        for NamedTensor { name, tensor } in inputs {
            let named =
                self.graph.inputs.iter().zip(&mut places).find(|(spec, _)| spec.name == name);
            let Some((_, place)) = named else {
                return Err(input_error(&name, format!("not known; {}", self.takes())));
            };
            if place.replace(tensor).is_some() {
                return Err(input_error(&name, "given twice; give it once"));
            }
        }
        let filled = self.graph.inputs.iter().zip(places).map(|(spec, place)| match place {
            Some(tensor) => Ok(tensor),
            None if is_budget(spec) => budget_tensor(budget),
            None => Err(input_error(&spec.name, format!("missing; {}", self.takes()))),
        });
        filled.collect()
    }

    fn takes(&self) -> String {
        let names: Vec<_> = self.graph.inputs.iter().map(|input| input.name.as_str()).collect();
        format!("the model takes: {}", names.join(", "))
    }

    pub fn finish(&self, outputs: Vec<Tensor>) -> Result<Vec<Output>, RunError> {
        if outputs.len() != self.graph.outputs.len() {
            let (given, named) = (outputs.len(), self.graph.outputs.len());
            let cause = format!("it gave {given} outputs where its signature names {named}");
            return Err(RunError::Model { cause });
        }
        let named = self.graph.outputs.iter().zip(outputs).map(|(spec, tensor)| Output {
            name: Arc::clone(&spec.name),
            content: Content::Plain,
            tensor,
        });
        Ok(named.collect())
    }
}
