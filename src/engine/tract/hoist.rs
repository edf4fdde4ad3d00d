//! Takes our operators and their weights out of a model before tract sees it.
//!
//! tract copies every initializer to the heap, twice where it lies outside the file. Here, weights
//! of our operators that lie outside are mapped and never copied, and those inside are moved.
//! What other nodes have outside is read into the protobuf, so that tract opens no files at all.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use super::operators::{OPERATOR, OPERATOR_INDEX, Operator};
use crate::engine::LoadError;
use crate::engine::inspect::{External, InspectError, external};
use crate::engine::limits::Limits;
use crate::engine::mapping::{Bytes, map};
use crate::engine::moe::{
    Node, TensorSource, Tensors, parse_experts, parse_group_router, parse_mat_mul_nbits,
};

/// Where the model lies.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub bundle: &'a Path,
    pub file: &'a str,
    pub limits: &'a Limits,
}

/// The domain of our operators; `inspect` refuses them in any other.
const DOMAIN: &str = "com.microsoft";

/// Inputs of `node` that are computed while the model runs; the others are weights. `None` for
/// nodes that are tract's.
fn run_time_inputs(node: &NodeProto) -> Option<&'static [usize]> {
    if node.domain != DOMAIN {
        return None;
    }
    match node.op_type.as_str() {
        "MoE" => Some(&[0, 1]),
        // 14: router_weights.
        "QMoE" => Some(&[0, 1, 14]),
        "MatMulNBits" | "MoEGroupRouter" => Some(&[0]),
        _ => None,
    }
}

/// Parses all of our operators in `model` and leaves, for each, a node that refers to its place in
/// the list that comes back. Weights that only they use are gone from the model.
pub fn hoist(
    model: &mut ModelProto,
    externals: &[External],
    place: Place<'_>,
) -> Result<Vec<Operator>, LoadError> {
    let Some(graph) = model.graph.as_mut() else { return Ok(Vec::new()) };
    refuse_in_subgraphs(graph, place)?;
    let (ours, theirs) = users(graph);
    let tensors = take_tensors(graph, &ours, &theirs, externals, place)?;
    let mut operators = Vec::new();
    let mut layers = 0;
    for node in &mut graph.node {
        let Some(inputs) = run_time_inputs(node) else { continue };
        let operator = parse(Node { proto: node, tensors: &tensors }, layers)
            .and_then(|operator| within_limits(operator, place))
            .map_err(|cause| operator_error(node, place, cause))?;
        let kept = inputs.iter().filter_map(|&i| node.input.get(i)).filter(|name| !name.is_empty());
        node.input = kept.cloned().collect();
        node.attribute = vec![AttributeProto {
            name: OPERATOR_INDEX.to_owned(),
            r#type: AttributeType::Int as i32,
            i: operators.len() as i64,
            ..AttributeProto::default()
        }];
        node.op_type = OPERATOR.to_owned();
        layers += usize::from(matches!(operator, Operator::Experts { .. }));
        operators.push(operator);
    }
    Ok(operators)
}

fn parse(node: Node<'_>, layer: usize) -> Result<Operator, String> {
    for (i, role) in [(0, "x"), (1, "router_probs")] {
        let needed = i == 0 || matches!(node.proto.op_type.as_str(), "MoE" | "QMoE");
        if needed && node.input(i).is_none() {
            return Err(format!("input {role}: missing"));
        }
    }
    Ok(match node.proto.op_type.as_str() {
        "MoE" | "QMoE" => Operator::Experts { layer, experts: Arc::new(parse_experts(node)?) },
        "MatMulNBits" => Operator::MatMulNBits(Arc::new(parse_mat_mul_nbits(node)?)),
        _ => {
            // Trailing outputs without a name are as good as none.
            let full_scores = node.proto.output.iter().skip(1).any(|name| !name.is_empty());
            let router = Arc::new(parse_group_router(node)?);
            if full_scores && (router.groups != 1 || !node.proto.output[0].is_empty()) {
                return Err("outputs: selection_scores and router_weights stand alone, without \
                            router_probs and groups"
                    .to_owned());
            }
            Operator::GroupRouter { router, full_scores }
        }
    })
}

fn within_limits(operator: Operator, place: Place<'_>) -> Result<Operator, String> {
    let experts = match &operator {
        Operator::Experts { experts, .. } => experts.experts,
        Operator::GroupRouter { router, .. } => router.bias.len(),
        Operator::MatMulNBits(_) => 0,
    };
    let experts_max = place.limits.experts_max;
    if experts as u64 > experts_max {
        return Err(format!("{experts} experts: at most {experts_max} are supported"));
    }
    Ok(operator)
}

fn operator_error(node: &NodeProto, place: Place<'_>, cause: String) -> LoadError {
    let first_output = || node.output.first().cloned().unwrap_or_default();
    LoadError::Operator {
        file: place.file.to_owned(),
        operator: node.op_type.clone(),
        node: if node.name.is_empty() { first_output() } else { node.name.clone() },
        cause,
    }
}

fn refuse_in_subgraphs(graph: &GraphProto, place: Place<'_>) -> Result<(), LoadError> {
    let mut graphs: Vec<&GraphProto> = graph.node.iter().flat_map(subgraphs).collect();
    while let Some(graph) = graphs.pop() {
        for node in &graph.node {
            if run_time_inputs(node).is_some() {
                let cause = "inside a subgraph: not supported; export the model without If, Loop \
                             and Scan around it";
                return Err(operator_error(node, place, cause.to_owned()));
            }
            graphs.extend(subgraphs(node));
        }
    }
    Ok(())
}

fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
}

/// Names of constants that our operators use, and names that anything else uses.
fn users(graph: &GraphProto) -> (HashSet<String>, HashSet<String>) {
    let mut ours = HashSet::new();
    let mut theirs: HashSet<String> =
        graph.output.iter().map(|output| output.name.clone()).collect();
    // An initializer that is listed as an input too may be overridden at run time.
    theirs.extend(graph.input.iter().map(|input| input.name.clone()));
    for node in &graph.node {
        let run_time = run_time_inputs(node);
        for (i, name) in node.input.iter().enumerate() {
            match run_time {
                Some(run_time) if !run_time.contains(&i) => ours.insert(name.clone()),
                _ => theirs.insert(name.clone()),
            };
        }
    }
    let mut graphs: Vec<&GraphProto> = graph.node.iter().flat_map(subgraphs).collect();
    while let Some(graph) = graphs.pop() {
        theirs.extend(graph.node.iter().flat_map(|node| node.input.iter().cloned()));
        theirs.extend(graph.output.iter().map(|output| output.name.clone()));
        graphs.extend(graph.node.iter().flat_map(subgraphs));
    }
    ours.remove("");
    (ours, theirs)
}

fn take_tensors(
    graph: &mut GraphProto,
    ours: &HashSet<String>,
    theirs: &HashSet<String>,
    externals: &[External],
    place: Place<'_>,
) -> Result<Tensors, LoadError> {
    let inputs: HashSet<String> = graph.input.iter().map(|input| input.name.clone()).collect();
    let externals: HashMap<&str, &External> =
        externals.iter().map(|external| (external.initializer.as_str(), external)).collect();
    let mut files = Files { place, mapped: HashMap::new(), heap_bytes: 0 };
    let mut tensors = Tensors::default();
    for proto in &mut graph.initializer {
        let external = externals.get(proto.name.as_str()).copied();
        if ours.contains(&proto.name) && !inputs.contains(&proto.name) {
            let source = match external {
                Some(external) => Some(files.source(external)?),
                None if theirs.contains(&proto.name) => TensorSource::take(&mut proto.clone()),
                None => TensorSource::take(proto),
            };
            if let Some(source) = source {
                tensors.insert(proto.name.clone(), source);
            }
        }
        if let Some(external) = external.filter(|_| theirs.contains(&proto.name)) {
            files.read_into(external, proto)?;
        }
    }
    // Those that nobody uses go too: tract would load them.
    graph.initializer.retain(|proto| theirs.contains(&proto.name));
    Ok(tensors)
}

/// The bundle's files of weights, each mapped once.
struct Files<'a> {
    place: Place<'a>,
    mapped: HashMap<String, Arc<Mmap>>,
    /// External data that has been read to the heap.
    heap_bytes: u64,
}

impl Files<'_> {
    fn source(&mut self, external: &External) -> Result<TensorSource, LoadError> {
        let too_large = || {
            let cause = std::io::Error::from(std::io::ErrorKind::FileTooLarge);
            LoadError::File { file: external.location.clone(), cause }
        };
        let file = self.file(external)?;
        let start = usize::try_from(external.offset).map_err(|_| too_large())?;
        let len = usize::try_from(external.bytes).map_err(|_| too_large())?;
        let end = start.checked_add(len).ok_or_else(too_large)?;
        let dims = external.dims.iter().map(|&dim| usize::try_from(dim)).collect::<Result<_, _>>();
        Ok(TensorSource {
            data_type: external.data_type,
            dims: dims.map_err(|_| too_large())?,
            bytes: Bytes::Mapped { file, range: start..end },
        })
    }

    fn read_into(&mut self, external: &External, proto: &mut TensorProto) -> Result<(), LoadError> {
        let source = self.source(external)?;
        self.heap_bytes = self.heap_bytes.saturating_add(external.bytes);
        let bytes_max = self.place.limits.external_heap_bytes_max;
        if self.heap_bytes > bytes_max {
            let cause = format!(
                "more than {bytes_max} bytes of external data for operators that can't map it; \
                 export linear layers as MatMulNBits and experts as QMoE"
            );
            let initializer = external.initializer.clone();
            return Err(LoadError::Graph {
                file: self.place.file.to_owned(),
                cause: format!("`{initializer}`: {cause}"),
            });
        }
        proto.raw_data = source.bytes.as_slice().to_vec();
        proto.external_data.clear();
        proto.data_location = None;
        Ok(())
    }

    fn file(&mut self, external: &External) -> Result<Arc<Mmap>, LoadError> {
        let location = &external.location;
        if !self.mapped.contains_key(location) {
            let file_error = |cause| LoadError::File { file: location.clone(), cause };
            let opened = external::open(self.place.bundle, location, self.place.limits)
                .map_err(|cause| self.inspect_error(cause))?;
            self.mapped.insert(location.clone(), map(&opened).map_err(file_error)?);
        }
        let file = Arc::clone(&self.mapped[location]);
        external.check_within(file.len() as u64).map_err(|cause| self.inspect_error(cause))?;
        Ok(file)
    }

    fn inspect_error(&self, cause: InspectError) -> LoadError {
        LoadError::Inspect { file: self.place.file.to_owned(), cause }
    }
}
