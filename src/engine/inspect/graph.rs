//! Walks a decoded graph and its subgraphs, and checks names, tensors, nodes and how they are
//! joined.
//!
//! tract finds outputs by name in a map and panics where there is none, so every name that is
//! read must be made somewhere in sight. It recurses as deep as graphs nest, which
//! [`wire`](super::wire) has bounded. It knows neither types nor shapes of inner values.

use std::collections::{BTreeSet, HashSet};

use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimensionValue;
use tract_onnx::pb::type_proto::Value as TypeValue;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

use super::Summary;
use super::error::{ExternalFault, InspectError, TensorFault, shown};
use super::external::{self, External};
use super::operators::{OperatorSets, check_attribute_values, label};
use super::tensor::{self, Checked, Label};
use super::wire::{count, over};
use crate::engine::limits::Limits;

/// The names in sight of a graph: its own, then those of the graphs around it.
struct Scope<'a> {
    names: HashSet<&'a str>,
    outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn sees(&self, name: &str) -> bool {
        self.names.contains(name) || self.outer.is_some_and(|outer| outer.sees(name))
    }
}

/// What is gathered on the way.
pub(super) struct Walk<'m> {
    limits: &'m Limits,
    sets: OperatorSets,
    files: BTreeSet<&'m str>,
    pub externals: Vec<External>,
    pub summary: Summary,
}

impl<'m> Walk<'m> {
    pub fn new(limits: &'m Limits, sets: OperatorSets) -> Walk<'m> {
        Walk {
            limits,
            sets,
            files: BTreeSet::new(),
            externals: Vec::new(),
            summary: Summary::default(),
        }
    }

    /// Walks the model's own graph.
    pub fn main(&mut self, graph: &'m GraphProto) -> Result<(), InspectError> {
        self.graph(graph, None)?;
        let initialized: HashSet<&str> =
            graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        let fed = |input: &&ValueInfoProto| !initialized.contains(input.name.as_str());
        if !graph.input.iter().any(|input| fed(&input)) {
            return Err(InspectError::Missing { what: "an input" });
        }
        if graph.output.is_empty() {
            return Err(InspectError::Missing { what: "an output" });
        }
        // Of a subgraph the types may be left out; here nothing else gives them.
        for input in graph.input.iter().filter(fed) {
            let typed = input.r#type.as_ref().is_some_and(|of| of.value.is_some());
            if !typed {
                let value = shown(&input.name);
                return Err(InspectError::Value { value, cause: "no tensor type" });
            }
        }
        Ok(())
    }

    fn graph(
        &mut self,
        graph: &'m GraphProto,
        outer: Option<&Scope<'_>>,
    ) -> Result<(), InspectError> {
        check_name("graph", &graph.name, self.limits)?;
        let mut names: HashSet<&str> = HashSet::new();
        self.initializers(graph, &mut names, outer.is_none())?;
        let initialized = names.clone();
        self.ios(graph, &initialized, &mut names)?;
        for node in &graph.node {
            for output in node.output.iter().filter(|output| !output.is_empty()) {
                check_name("node output", output, self.limits)?;
                define("node output", output, &mut names)?;
            }
        }
        let scope = Scope { names, outer };
        for node in &graph.node {
            self.node(node, &scope)?;
        }
        for output in &graph.output {
            // Not from around it: tract and onnxruntime both want it made here.
            if !scope.names.contains(output.name.as_str()) {
                let name = shown(&output.name);
                return Err(InspectError::Unresolved { what: "graph output", name });
            }
        }
        Ok(())
    }

    fn initializers(
        &mut self,
        graph: &'m GraphProto,
        names: &mut HashSet<&'m str>,
        main: bool,
    ) -> Result<(), InspectError> {
        for tensor in &graph.initializer {
            check_name("initializer", &tensor.name, self.limits)?;
            if tensor.name.is_empty() {
                return Err(InspectError::Missing { what: "an initializer's name" });
            }
            define("initializer", &tensor.name, names)?;
            self.summary.initializers = self.summary.initializers.saturating_add(1);
            let place = Label::Initializer(&tensor.name);
            let checked = self.tensor(tensor, place, main)?;
            if checked.external {
                self.external(tensor, &checked)?;
            }
        }
        Ok(())
    }

    fn external(&mut self, tensor: &'m TensorProto, checked: &Checked) -> Result<(), InspectError> {
        let external = external::read(tensor, checked, self.limits)?;
        // The sum, because whoever copies instead of mapping copies each of them.
        self.summary.external_bytes = self.summary.external_bytes.saturating_add(external.bytes);
        let limit = self.limits.external_bytes_max;
        over("bytes of external data", self.summary.external_bytes, limit)?;
        let entry = tensor.external_data.iter().find(|entry| entry.key == "location");
        self.files.extend(entry.map(|entry| entry.value.as_str()));
        let files = count(self.files.len());
        over("files of external data", files, self.limits.external_files_max)?;
        self.externals.push(external);
        Ok(())
    }

    fn tensor(
        &mut self,
        tensor: &TensorProto,
        place: Label<'_>,
        external_allowed: bool,
    ) -> Result<Checked, InspectError> {
        let checked = tensor::check(tensor, place, self.limits)?;
        if !checked.external {
            self.summary.inline_bytes = self.summary.inline_bytes.saturating_add(checked.bytes);
        } else if !external_allowed {
            let fault = ExternalFault::NotAllowed;
            return Err(InspectError::External { tensor: place.to_string(), fault });
        }
        Ok(checked)
    }

    /// Checks inputs and outputs, and adds the inputs to `names`.
    fn ios(
        &self,
        graph: &'m GraphProto,
        initialized: &HashSet<&str>,
        names: &mut HashSet<&'m str>,
    ) -> Result<(), InspectError> {
        let mut seen: HashSet<&str> = HashSet::new();
        let mut ios = count(graph.output.len());
        for input in &graph.input {
            check_value("graph input", input, self.limits)?;
            define("graph input", &input.name, &mut seen)?;
            // Old models list every initializer as an input with a default: one name, one thing.
            if !initialized.contains(input.name.as_str()) {
                ios = ios.saturating_add(1);
                names.insert(&input.name);
            }
        }
        over("graph inputs and outputs", ios, self.limits.graph_ios_max)?;
        let mut seen: HashSet<&str> = HashSet::new();
        for output in &graph.output {
            check_value("graph output", output, self.limits)?;
            define("graph output", &output.name, &mut seen)?;
        }
        for value in &graph.value_info {
            check_value("value", value, self.limits)?;
        }
        Ok(())
    }

    fn node(&mut self, node: &'m NodeProto, scope: &Scope<'_>) -> Result<(), InspectError> {
        check_name("node", &node.name, self.limits)?;
        let domain = self.sets.check(node)?;
        for input in node.input.iter().filter(|input| !input.is_empty()) {
            check_name("node input", input, self.limits)?;
            if !scope.sees(input) {
                let name = shown(input);
                return Err(InspectError::Unresolved { what: "node input", name });
            }
        }
        check_attribute_values(node, self.limits)?;
        let mut seen: HashSet<&str> = HashSet::new();
        for attribute in &node.attribute {
            check_name("attribute", &attribute.name, self.limits)?;
            define("attribute", &attribute.name, &mut seen)?;
            self.attribute(node, attribute, scope)?;
        }
        self.summary.nodes = self.summary.nodes.saturating_add(1);
        let operator = (domain.name().to_owned(), node.op_type.clone());
        let uses = self.summary.operators.entry(operator).or_default();
        *uses = uses.saturating_add(1);
        Ok(())
    }

    fn attribute(
        &mut self,
        node: &'m NodeProto,
        attribute: &'m AttributeProto,
        scope: &Scope<'_>,
    ) -> Result<(), InspectError> {
        if !attribute.ref_attr_name.is_empty() {
            return Err(InspectError::Attribute {
                node: shown(label(node)),
                attribute: shown(&attribute.name),
                cause: "refers to a function's attribute, outside a function",
            });
        }
        let place = Label::Attribute { node: label(node), attribute: &attribute.name };
        for tensor in attribute.t.iter().chain(&attribute.tensors) {
            check_name("tensor", &tensor.name, self.limits)?;
            self.tensor(tensor, place, false)?;
        }
        for graph in attribute.g.iter().chain(&attribute.graphs) {
            self.graph(graph, Some(scope))?;
        }
        Ok(())
    }
}

/// Adds `name` to `names`, where it must be new.
fn define<'a>(
    what: &'static str,
    name: &'a str,
    names: &mut HashSet<&'a str>,
) -> Result<(), InspectError> {
    if names.insert(name) {
        Ok(())
    } else {
        Err(InspectError::Duplicate { what, name: shown(name) })
    }
}

/// Checks that `name` can be shown and is no longer than the limit. Empty is for the caller.
pub(super) fn check_name(
    what: &'static str,
    name: &str,
    limits: &Limits,
) -> Result<(), InspectError> {
    let cause = if count(name.len()) > limits.name_bytes_max {
        "too long"
    } else if name.chars().any(char::is_control) {
        "a control character"
    } else {
        return Ok(());
    };
    Err(InspectError::Name { what, name: shown(name), cause })
}

/// Checks the name and the declared type of a value.
fn check_value(
    what: &'static str,
    value: &ValueInfoProto,
    limits: &Limits,
) -> Result<(), InspectError> {
    check_name(what, &value.name, limits)?;
    let refused = |cause| InspectError::Value { value: shown(&value.name), cause };
    if value.name.is_empty() {
        return Err(refused("no name"));
    }
    let Some(TypeValue::TensorType(of)) = value.r#type.as_ref().and_then(|of| of.value.as_ref())
    else {
        return Ok(());
    };
    tensor::known_type(of.elem_type).map_err(|_| refused("an element type not supported"))?;
    let mut dims = Vec::new();
    for dim in of.shape.iter().flat_map(|shape| &shape.dim) {
        match &dim.value {
            // Exporters write a negative one for a dimension that is not known, and so does tract.
            Some(DimensionValue::DimValue(size)) => dims.push((*size).max(0)),
            Some(DimensionValue::DimParam(text)) => {
                check_dim_param(text, limits).map_err(refused)?;
                dims.push(1);
            }
            None => dims.push(1),
        }
    }
    match tensor::elements(&dims, limits) {
        Ok(_) => Ok(()),
        Err(TensorFault::Rank { .. }) => Err(refused("more dimensions than the limit")),
        Err(_) => Err(refused("more elements than the limit")),
    }
}

/// tract parses a symbolic dimension by recursion: 5,000 parentheses, a file of 10 kB, overflow
/// the stack, which nothing can catch. The length bounds minus signs, which recurse too.
fn check_dim_param(text: &str, limits: &Limits) -> Result<(), &'static str> {
    if count(text.len()) > limits.dim_param_bytes_max {
        return Err("a symbolic dimension is too long");
    }
    if !text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        return Err("a symbolic dimension has a character other than printable ASCII");
    }
    let mut open: u64 = 0;
    for c in text.chars() {
        match c {
            '(' => open = open.saturating_add(1),
            ')' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > limits.dim_param_nesting_max {
            return Err("a symbolic dimension nests too deep");
        }
    }
    Ok(())
}
