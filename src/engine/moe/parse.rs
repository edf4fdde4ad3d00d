//! From nodes to operators: everything that can be wrong with one is found here, at load.

use tract_onnx::pb::tensor_proto::DataType;

use super::activation::{Function, SwiGlu};
use super::experts::{Experts, Gating};
use super::gate::Weighing;
use super::group_router::GroupRouter;
use super::nbits::MatMulNBits;
use super::node::{Node, Result, check_dims};
use super::projection::{Projection, Quantised, Weights};
use super::tensors::TensorSource;
use crate::engine::kernel::activations::Precision;
use crate::engine::kernel::cache_holds;
use crate::engine::kernel::matmul::{blocks, row_bytes};
use crate::engine::mapping::Bytes;

/// Positions of one projection's inputs, and what the specification calls it.
struct Slots {
    name: &'static str,
    weights: usize,
    scales: usize,
    bias: usize,
    zero_points: usize,
}

/// How `QMoE` stores its weights.
#[derive(Clone, Copy)]
struct Storage {
    bits: u8,
    block: Option<usize>,
}

const MOE_SLOTS: [Slots; 3] = [
    Slots { name: "fc1_experts", weights: 2, scales: 0, bias: 3, zero_points: 0 },
    Slots { name: "fc2_experts", weights: 4, scales: 0, bias: 5, zero_points: 0 },
    Slots { name: "fc3_experts", weights: 6, scales: 0, bias: 7, zero_points: 0 },
];

const QMOE_SLOTS: [Slots; 3] = [
    Slots { name: "fc1", weights: 2, scales: 3, bias: 4, zero_points: 11 },
    Slots { name: "fc2", weights: 5, scales: 6, bias: 7, zero_points: 12 },
    Slots { name: "fc3", weights: 8, scales: 9, bias: 10, zero_points: 13 },
];

/// Parses a `MoE` or `QMoE` node with its weights.
pub fn parse_experts(node: Node<'_>) -> Result<Experts> {
    let (operator, storage) = match node.proto.op_type.as_str() {
        "QMoE" => ("QMoE", Some(storage(node)?)),
        _ => ("MoE", None),
    };
    let slots = if storage.is_some() { &QMOE_SLOTS } else { &MOE_SLOTS };
    refuse_unsupported(node)?;
    let [fc1_slots, fc2_slots, fc3_slots] = slots;

    let [experts, fc1_features, _] = three_dims(node, fc1_slots)?;
    let [_, hidden, _] = three_dims(node, fc2_slots)?;
    if experts == 0 || hidden == 0 || fc1_features == 0 {
        return Err(format!("input {}: a dimension is 0", role(fc1_slots, "weights")));
    }
    let k = node.size("k", 1, 1, experts)?;
    let gating = gating(node, fc3_slots)?;
    let inter = match gating {
        Gating::Interleaved(_) | Gating::Halves(_) if !fc1_features.is_multiple_of(2) => {
            return Err(format!(
                "input {}: {fc1_features} rows: swiglu needs gate and linear rows in pairs",
                role(fc1_slots, "weights")
            ));
        }
        Gating::Interleaved(_) | Gating::Halves(_) => fc1_features / 2,
        Gating::Single(_) | Gating::Split(_) => fc1_features,
    };
    if let Some(Storage { block: Some(block), .. }) = storage
        && !(hidden.is_multiple_of(block) && inter.is_multiple_of(block))
    {
        return Err(format!(
            "attribute `block_size`: {block} does not divide the hidden size {hidden} and the \
             inner size {inter}"
        ));
    }
    let read = |slots, n, k| projection(node, slots, storage, [experts, n, k]);
    let fc1 = read(fc1_slots, fc1_features, hidden)?;
    let fc2 = read(fc2_slots, hidden, inter)?;
    let fc3 = match gating {
        Gating::Split(_) => Some(read(fc3_slots, inter, hidden)?),
        _ => None,
    };
    let precision = match storage {
        // What onnxruntime rounds to 8 bits; all else it computes in f32.
        Some(Storage { bits, block: Some(_) })
            if bits == 8 || node.int("accuracy_level", 0)? == 4 =>
        {
            Precision::Int8
        }
        _ => Precision::Int16,
    };
    let normalise = node.size("normalize_routing_weights", 0, 0, 1)? == 1;
    let weighing = match (storage, node.input(14)) {
        (None, _) => Weighing::SoftmaxOfAll { normalise },
        (Some(_), None) => Weighing::SoftmaxOfChosen,
        (Some(_), Some(_)) => Weighing::Given { normalise },
    };
    let name = node.proto.name.clone();
    Ok(Experts {
        operator,
        name,
        experts,
        hidden,
        inter,
        k,
        weighing,
        gating,
        precision,
        fc1,
        fc2,
        fc3,
    })
}

fn three_dims(node: Node<'_>, slots: &Slots) -> Result<[usize; 3]> {
    let role = role(slots, "weights");
    let dims = &node.required(slots.weights, &role)?.dims;
    <[usize; 3]>::try_from(dims.as_slice())
        .map_err(|_| format!("input {role}: shape {dims:?}: 3 dimensions were expected"))
}

fn role(slots: &Slots, what: &str) -> String {
    // The specification calls them fc1_experts_weights, but fc1_scales.
    match what {
        "weights" | "bias" if !slots.name.ends_with("experts") => {
            format!("{}_experts_{what}", slots.name)
        }
        _ => format!("{}_{what}", slots.name),
    }
}

fn storage(node: Node<'_>) -> Result<Storage> {
    let bits = node.int("expert_weight_bits", 4)?;
    let bits =
        u8::try_from(bits).ok().filter(|bits| matches!(bits, 2 | 4 | 8)).ok_or_else(|| {
            format!("attribute `expert_weight_bits`: {bits}: 2, 4 or 8 are supported")
        })?;
    for name in ["fc1_expert_weight_bits", "fc2_expert_weight_bits", "fc3_expert_weight_bits"] {
        node.refuse_but(
            name,
            i64::from(bits),
            "projections of different widths are not supported",
        )?;
    }
    let quant_type = node.string("quant_type", "int")?;
    if quant_type != "int" {
        return Err(format!(
            "attribute `quant_type`: `{quant_type}` is not supported: only `int` is"
        ));
    }
    let block = match node.int("block_size", 0)? {
        0 | -1 => None,
        block => Some(
            usize::try_from(block)
                .ok()
                .filter(|block| *block >= 16 && block.is_power_of_two())
                .ok_or_else(|| {
                    format!(
                        "attribute `block_size`: {block}: a power of two from 16 on was expected"
                    )
                })?,
        ),
    };
    Ok(Storage { bits, block })
}

fn refuse_unsupported(node: Node<'_>) -> Result<()> {
    node.refuse_but("use_sparse_mixer", 0, "the sparse mixer is not supported")?;
    node.refuse_but("swiglu_limit_after_activation", 0, "it is not supported")?;
    let prepacked = node.int("weights_prepacked", -1)?;
    if prepacked == 1 {
        return Err("attribute `weights_prepacked`: 1: packed weights are not supported; export \
                    it with weights_prepacked=0"
            .to_owned());
    }
    let why = "4- and 8-bit floats are not supported: export integers";
    for (index, role) in [
        (15, "fc1_global_scale"),
        (16, "fc2_global_scale"),
        (17, "fc1_act_scale"),
        (18, "fc2_act_scale"),
        (19, "fc1_act_block_scale"),
        (20, "fc2_act_block_scale"),
    ] {
        node.refuse_input(index, role, why)?;
    }
    Ok(())
}

fn gating(node: Node<'_>, fc3: &Slots) -> Result<Gating> {
    let activation = node.string("activation_type", "relu")?;
    let function = match activation {
        "relu" => Some(Function::Relu),
        "gelu" => Some(Function::Gelu),
        "silu" => Some(Function::Silu),
        "identity" => Some(Function::Identity),
        "swiglu" => None,
        other => {
            return Err(format!(
                "attribute `activation_type`: `{other}` is not supported: relu, gelu, silu, \
                 identity and swiglu are"
            ));
        }
    };
    let fc3_weights = role(fc3, "weights");
    if let Some(function) = function {
        // `swiglu_fusion` means nothing here, and exporters leave it set.
        let why = format!("`{activation}` has no third projection");
        node.refuse_input(fc3.weights, &fc3_weights, &why)?;
        return Ok(Gating::Single(function));
    }
    let swiglu = SwiGlu {
        alpha: node.float("activation_alpha", 1.0)?,
        beta: node.float("activation_beta", 0.0)?,
        limit: node.float("swiglu_limit", f32::INFINITY)?,
    };
    match node.size("swiglu_fusion", 0, 0, 2)? {
        0 => match node.input(fc3.weights) {
            Some(_) => Ok(Gating::Split(swiglu)),
            None => Err(format!(
                "input {fc3_weights}: missing: swiglu with swiglu_fusion=0 needs it; set \
                 swiglu_fusion to 1 or 2 if fc1 holds gate and linear rows"
            )),
        },
        fusion => {
            node.refuse_input(fc3.weights, &fc3_weights, "fused swiglu has no third projection")?;
            Ok(if fusion == 1 { Gating::Interleaved(swiglu) } else { Gating::Halves(swiglu) })
        }
    }
}

fn projection(
    node: Node<'_>,
    slots: &Slots,
    storage: Option<Storage>,
    [experts, n, k]: [usize; 3],
) -> Result<Projection> {
    let weights_role = role(slots, "weights");
    let tensor = node.required(slots.weights, &weights_role)?;
    let weights = match storage {
        None => {
            check_dims(&weights_role, tensor, &[experts, n, k])?;
            let floats = || tensor.floats().map(Weights::F32);
            let halves = || tensor.halves().map(Weights::F16);
            let weights = if tensor.data_type == DataType::Float { floats() } else { halves() };
            weights.ok_or_else(|| wrong_type(&weights_role, tensor, "float or float16"))?
        }
        Some(Storage { bits, block }) => {
            let bytes = row_bytes(bits, k, block);
            check_dims(&weights_role, tensor, &[experts, n, bytes])?;
            check_bytes(&weights_role, tensor)?;
            let per_row = blocks(k, block);
            let scales_role = role(slots, "scales");
            let scales = node.required(slots.scales, &scales_role)?;
            let mut dims = vec![experts, n];
            dims.extend(block.map(|_| per_row));
            check_dims(&scales_role, scales, &dims)?;
            let zeros = node.constant(slots.zero_points, &role(slots, "zero_points"))?;
            // Packed along n where a row has one, along the row's blocks where it has several.
            let (rows, along) = if block.is_some() { (experts * n, per_row) } else { (experts, n) };
            let zero_points = zeros
                .map(|zeros| {
                    let bytes = row_bytes(bits, along, None);
                    let dims = if block.is_some() {
                        vec![experts, n, bytes]
                    } else {
                        vec![experts, bytes]
                    };
                    unpack_zero_points(&role(slots, "zero_points"), zeros, &dims, rows, along, bits)
                })
                .transpose()?;
            Weights::Quantised(Quantised {
                bits,
                block,
                codes: tensor.bytes.clone(),
                cached: cache_holds(node.tensors.bytes()),
                scales: scales
                    .floats()
                    .ok_or_else(|| wrong_type(&scales_role, scales, "float or float16"))?,
                zero_points,
            })
        }
    };
    let bias = bias(node, slots.bias, &role(slots, "bias"), &[experts, n])?;
    Ok(Projection { n, k, weights, bias })
}

/// A bias, unless it is absent or all zeros, which exporters write too.
fn bias(node: Node<'_>, index: usize, role: &str, dims: &[usize]) -> Result<Option<Vec<f32>>> {
    let Some(tensor) = node.constant(index, role)? else { return Ok(None) };
    check_dims(role, tensor, dims)?;
    let floats = tensor.floats().ok_or_else(|| wrong_type(role, tensor, "float or float16"))?;
    let floats = floats.as_slice();
    Ok(floats.iter().any(|x| *x != 0.0).then(|| floats.to_vec()))
}

fn wrong_type(role: &str, tensor: &TensorSource, wanted: &str) -> String {
    format!("input {role}: type {}: {wanted} was expected", tensor.data_type.as_str_name())
}

fn check_bytes(role: &str, tensor: &TensorSource) -> Result<()> {
    if tensor.data_type == DataType::Uint8 {
        Ok(())
    } else {
        Err(wrong_type(role, tensor, "uint8"))
    }
}

/// Zero points as one byte each: `rows` rows of `along` of them, each row packed to whole bytes.
fn unpack_zero_points(
    role: &str,
    tensor: &TensorSource,
    dims: &[usize],
    rows: usize,
    along: usize,
    bits: u8,
) -> Result<Bytes> {
    check_bytes(role, tensor)?;
    check_dims(role, tensor, dims)?;
    if bits == 8 {
        return Ok(tensor.bytes.clone());
    }
    let per_byte = 8 / usize::from(bits);
    let packed = row_bytes(bits, along, None);
    let mut zeros = Vec::with_capacity(rows * along);
    for row in tensor.bytes.as_slice().chunks_exact(packed) {
        zeros.extend((0..along).map(|i| {
            let shift = usize::from(bits) * (i % per_byte);
            (row[i / per_byte] >> shift) & ((1 << bits) - 1)
        }));
    }
    Ok(Bytes::heap(zeros))
}

/// Parses a `MatMulNBits` node with its weights.
pub fn parse_mat_mul_nbits(node: Node<'_>) -> Result<MatMulNBits> {
    const SIZE_MAX: usize = 1 << 28;
    let k = node.size("K", -1, 1, SIZE_MAX)?;
    let n = node.size("N", -1, 1, SIZE_MAX)?;
    let bits = node.int("bits", 4)?;
    let bits = u8::try_from(bits)
        .ok()
        .filter(|bits| matches!(bits, 2 | 4 | 8))
        .ok_or_else(|| format!("attribute `bits`: {bits}: 2, 4 or 8 are supported"))?;
    let block = node.size("block_size", -1, 16, SIZE_MAX)?;
    if !block.is_power_of_two() {
        return Err(format!("attribute `block_size`: {block}: a power of two was expected"));
    }
    node.refuse_but("weight_prepacked", 0, "packed weights are not supported")?;
    node.refuse_input(4, "g_idx", "reordered columns are not supported; export without act-order")?;
    let per_row = blocks(k, Some(block));
    let codes = node.required(1, "B")?;
    check_bytes("B", codes)?;
    check_dims("B", codes, &[n, per_row, block * usize::from(bits) / 8])?;
    let scales = node.required(2, "scales")?;
    check_any_dims("scales", scales, &[&[n, per_row], &[n * per_row]])?;
    let zeros = node.constant(3, "zero_points")?;
    let packed = row_bytes(bits, per_row, None);
    let zero_points = zeros
        .map(|zeros| {
            check_any_dims("zero_points", zeros, &[&[n, packed], &[n * packed]])?;
            unpack_zero_points("zero_points", zeros, &zeros.dims, n, per_row, bits)
        })
        .transpose()?;
    let weights = Weights::Quantised(Quantised {
        bits,
        block: Some(block),
        codes: codes.bytes.clone(),
        cached: cache_holds(node.tensors.bytes()),
        scales: scales.floats().ok_or_else(|| wrong_type("scales", scales, "float or float16"))?,
        zero_points,
    });
    // 4: "int8"; 0 is unset, 1 to 3 are f32, f16 and bf16: activations may not be rounded to 8.
    let precision =
        if node.size("accuracy_level", 0, 0, 4)? == 4 { Precision::Int8 } else { Precision::Int16 };
    let bias = bias(node, 5, "bias", &[n])?;
    let name = node.proto.name.clone();
    Ok(MatMulNBits { name, precision, projection: Projection { n, k, weights, bias } })
}

fn check_any_dims(role: &str, tensor: &TensorSource, choices: &[&[usize]]) -> Result<()> {
    if choices.contains(&tensor.dims.as_slice()) {
        return Ok(());
    }
    Err(format!("input {role}: shape {:?}: one of {choices:?} was expected", tensor.dims))
}

/// Parses a `MoEGroupRouter` node with its bias.
pub fn parse_group_router(node: Node<'_>) -> Result<GroupRouter> {
    let tensor = node.required(1, "expert_bias")?;
    let &[experts] = tensor.dims.as_slice() else {
        return Err(format!(
            "input expert_bias: shape {:?}: one dimension was expected",
            tensor.dims
        ));
    };
    let bias = tensor.floats().ok_or_else(|| wrong_type("expert_bias", tensor, "float"))?;
    let groups = node.size("n_group", 1, 1, experts)?;
    if !experts.is_multiple_of(groups) {
        return Err(format!("attribute `n_group`: {groups} does not divide {experts} experts"));
    }
    Ok(GroupRouter {
        name: node.proto.name.clone(),
        bias: bias.as_slice().to_vec(),
        projection: router_projection(node, experts)?,
        top_k: node.size("top_k", -1, 1, experts)?,
        groups,
        top_groups: node.size("topk_group", 1, 1, groups)?,
        group_top_k: node.size("group_topk", 2, 1, usize::MAX)?.min(experts / groups),
        sentinel: node.float("router_sentinel", -10_000.0)?,
    })
}

fn router_projection(node: Node<'_>, experts: usize) -> Result<Option<Projection>> {
    const ROLE: &str = "projection_weight";
    let Some(tensor) = node.constant(2, ROLE)? else { return Ok(None) };
    let &[_, k] = tensor.dims.as_slice() else {
        return Err(format!("input {ROLE}: shape {:?}: [{experts}, width] expected", tensor.dims));
    };
    check_dims(ROLE, tensor, &[experts, k])?;
    if k == 0 {
        return Err(format!("input {ROLE}: a dimension is 0"));
    }
    let weights = tensor.floats().ok_or_else(|| wrong_type(ROLE, tensor, "float or float16"))?;
    Ok(Some(Projection { n: experts, k, weights: Weights::F32(weights), bias: None }))
}
