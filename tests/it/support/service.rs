//! A service with models that answer, wait, fail or refuse as their names say.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use half::f16;
use moed::infer::{
    Admin, Answer, Code, Content, Cost, Done, InferError, InferRequest, InputSpec, InstallDone,
    InstallProgress, InstallStep, Installed, ModelInfo, ModelRef, ModelState, ModelStatistics,
    ModelStatus, NamedTensor, Output, OutputSpec, Priority, Service, Tally,
};
use moed::tensor::{DType, Data, Tensor};

/// Every element type.
pub const DTYPES: [(&str, DType); 13] = [
    ("bool", DType::Bool),
    ("i8", DType::I8),
    ("i16", DType::I16),
    ("i32", DType::I32),
    ("i64", DType::I64),
    ("u8", DType::U8),
    ("u16", DType::U16),
    ("u32", DType::U32),
    ("u64", DType::U64),
    ("f16", DType::F16),
    ("f32", DType::F32),
    ("f64", DType::F64),
    ("bytes", DType::Bytes),
];

/// What a request was, for a test to look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub id: String,
    pub model: ModelRef,
    pub client: String,
    pub k: Option<usize>,
    pub budget: Option<f32>,
    pub priority: Priority,
    pub inputs: Vec<NamedTensor>,
}

/// - `intent`: text in, JSON out;
/// - `echo`: optional inputs of every type, each of which comes back but FP16, which only
///   `echo16` sends;
/// - `double`: x FP32 [-1, 4], y = 2 x;
/// - `half`: the same, and y is FP16;
/// - `slow`: as `intent`, after `delay`;
/// - `stuck`: never answers; `lost`: drops its reply;
/// - `full`, `broken`: refuse and fail; `loading`: is not loaded.
pub struct FakeService {
    pub delay: Duration,
    pub is_ready: bool,
    pub seen: Mutex<Vec<Seen>>,
    pub running: Arc<AtomicUsize>,
    /// More find the queue full.
    pub running_max: usize,
    pub admin: Mutex<Vec<String>>,
    pub stuck: Mutex<Vec<InferRequest>>,
}

impl Default for FakeService {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(50),
            is_ready: true,
            seen: Mutex::default(),
            running: Arc::default(),
            running_max: usize::MAX,
            admin: Mutex::default(),
            stuck: Mutex::default(),
        }
    }
}

impl FakeService {
    pub fn last_seen(&self) -> Seen {
        self.seen.lock().unwrap().last().expect("there was a request").clone()
    }
}

fn input(name: &str, dtype: DType, dims: &[Option<usize>], is_optional: bool) -> InputSpec {
    InputSpec { name: name.to_owned(), dtype, dims: dims.to_vec(), is_optional }
}

fn output(name: &str, dtype: DType, dims: &[Option<usize>], content: Content) -> OutputSpec {
    OutputSpec { name: name.into(), dtype, dims: dims.to_vec(), content }
}

/// The signature of one of the models.
pub fn model(name: &str) -> ModelInfo {
    let (inputs, outputs) = match name {
        "echo" | "echo16" => {
            let inputs = DTYPES.map(|(name, dtype)| input(name, dtype, &[None], true)).to_vec();
            let outputs = DTYPES.iter().filter(|(dtype, _)| name == "echo16" || *dtype != "f16");
            let plain =
                |(name, dtype): &(&str, DType)| output(name, *dtype, &[None], Content::Plain);
            (inputs, outputs.map(plain).collect())
        }
        "double" | "half" => {
            let dtype = if name == "half" { DType::F16 } else { DType::F32 };
            let dims = [None, Some(4)];
            (
                vec![input("x", DType::F32, &dims, false)],
                vec![output("y", dtype, &dims, Content::Plain)],
            )
        }
        _ => (
            vec![input("text", DType::Bytes, &[Some(1)], false)],
            vec![output("answer", DType::Bytes, &[Some(1)], Content::Json)],
        ),
    };
    ModelInfo {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        versions: vec!["1.0.0".to_owned()],
        task: if name == "intent" { "intent" } else { "tensor" }.to_owned(),
        inputs,
        outputs,
        k: (name == "intent").then_some((1, 4)),
        resident_bytes: 6_000_000,
    }
}

const MODELS: [&str; 11] = [
    "broken", "double", "echo", "echo16", "full", "half", "intent", "loading", "lost", "slow",
    "stuck",
];

fn compute(request: &InferRequest) -> Vec<Output> {
    let plain =
        |name: &str, tensor: Tensor| Output { name: name.into(), content: Content::Plain, tensor };
    let inputs = &request.inputs;
    match request.model.name.as_str() {
        "echo" => inputs.iter().map(|input| plain(&input.name, input.tensor.clone())).collect(),
        name @ ("double" | "half") => {
            let Data::F32(x) = inputs[0].tensor.data() else { panic!("checked before") };
            let data = match name {
                "half" => Data::F16(x.iter().map(|x| f16::from_f32(2.0 * x)).collect()),
                _ => Data::F32(x.iter().map(|x| 2.0 * x).collect()),
            };
            vec![plain("y", Tensor::new(inputs[0].tensor.shape().dims(), data).unwrap())]
        }
        _ => {
            let Data::Bytes(texts) = inputs[0].tensor.data() else { panic!("checked before") };
            let text = String::from_utf8_lossy(&texts[0]);
            let answer = serde_json::json!({"intent": "HassTurnOn", "text": text}).to_string();
            let tensor = Tensor::new(&[1], Data::Bytes(vec![answer.into_bytes()])).unwrap();
            vec![Output { name: "answer".into(), content: Content::Json, tensor }]
        }
    }
}

fn answer(request: InferRequest) {
    let outputs = compute(&request);
    let cost = Cost {
        k: 2,
        experts: vec![vec![3, 11], vec![0, 7]],
        weight_bytes_read: 4096,
        queue: Duration::from_micros(12),
        compute: Duration::from_micros(340),
    };
    let model = request.model.name.as_str().into();
    request.reply.send(Ok(Answer { model, version: "1.0.0".into(), outputs, cost }));
}

impl Service for FakeService {
    fn submit(&self, request: InferRequest) {
        self.seen.lock().unwrap().push(Seen {
            id: request.id.clone(),
            model: request.model.clone(),
            client: request.client.0.to_string(),
            k: request.options.k,
            budget: request.options.budget,
            priority: request.options.priority,
            inputs: request.inputs.clone(),
        });
        let refuse = |code, text| InferError::new(code, text);
        match request.model.name.as_str() {
            "full" => {
                let error = refuse(Code::Overloaded, "queue: full: try again later");
                request.reply.send(Err(error.with_retry_after(Duration::from_millis(1500))));
            }
            "broken" => request.reply.send(Err(refuse(Code::ModelFailed, "model: it failed"))),
            "lost" => drop(request),
            "stuck" => self.stuck.lock().unwrap().push(request),
            _ if self.running.load(Ordering::SeqCst) >= self.running_max => {
                let error = refuse(Code::Overloaded, "queue: full: try again later");
                request.reply.send(Err(error.with_retry_after(Duration::from_millis(5))));
            }
            // On another thread, as a worker would.
            name => {
                let delay = if name == "slow" { self.delay } else { Duration::ZERO };
                let running = Arc::clone(&self.running);
                running.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    std::thread::sleep(delay);
                    answer(request);
                    running.fetch_sub(1, Ordering::SeqCst);
                });
            }
        }
    }

    fn models(&self) -> Vec<ModelStatus> {
        let status = |name: &str| {
            let is_ready = name != "loading";
            ModelStatus {
                name: name.to_owned(),
                version: Some("1.0.0".to_owned()),
                state: if is_ready { ModelState::Ready } else { ModelState::Failed },
                reason: (!is_ready).then(|| "model: loading: no such file".to_owned()),
            }
        };
        MODELS.map(status).to_vec()
    }

    fn model(&self, wanted: &ModelRef) -> Result<Arc<ModelInfo>, InferError> {
        let ModelRef { name, version } = wanted;
        if name == "loading" {
            return Err(InferError::new(Code::Unavailable, "model `loading`: not loaded"));
        }
        if !MODELS.contains(&name.as_str()) || version.as_deref().is_some_and(|v| v != "1.0.0") {
            let text =
                format!("model `{name}`: unknown: GET /v2/models lists those that there are");
            return Err(InferError::new(Code::NotFound, text));
        }
        Ok(Arc::new(model(name)))
    }

    fn statistics(&self, wanted: Option<&ModelRef>) -> Result<Vec<ModelStatistics>, InferError> {
        if let Some(wanted) = wanted {
            self.model(wanted)?;
        }
        let name = wanted.map_or("intent", |wanted| &wanted.name).to_owned();
        let tally = |count| Tally { count, total: Duration::from_micros(count * 100) };
        Ok(vec![ModelStatistics {
            name,
            version: "1.0.0".to_owned(),
            last_inference: Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)),
            success: tally(7),
            fail: tally(1),
            queue: tally(7),
            batches: vec![(1, tally(7))],
            resident_bytes: 6_000_000,
            ..ModelStatistics::default()
        }])
    }

    fn is_live(&self) -> bool {
        true
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    fn exposition(&self) -> String {
        "# TYPE moed_up gauge\nmoed_up 1\n# EOF\n".to_owned()
    }
}

impl FakeService {
    fn done(&self, verb: &str, name: &str, done: Done) {
        self.admin.lock().unwrap().push(format!("{verb} {name}"));
        done(match name {
            "intent" => Ok(()),
            _ => Err(InferError::new(Code::NotFound, format!("model `{name}`: unknown"))),
        });
    }
}

impl Admin for FakeService {
    fn load(&self, name: &str, done: Done) {
        self.done("load", name, done);
    }

    fn unload(&self, name: &str, done: Done) {
        self.done("unload", name, done);
    }

    fn rollback(&self, name: &str, done: Done) {
        self.done("rollback", name, done);
    }

    fn remove(&self, name: &str, version: Option<&str>, done: Done) {
        self.done(&format!("remove {}", version.unwrap_or("all")), name, done);
    }

    /// Says `Receiving` until a piece is empty.
    fn install(&self, step: InstallStep, done: InstallDone) {
        self.admin.lock().unwrap().push(format!("{step:?}"));
        done(Ok(match step {
            InstallStep::Begin { .. } => {
                InstallProgress::Receiving { upload: "u1".to_owned(), offset: 0 }
            }
            InstallStep::Piece { upload, offset, bytes } if !bytes.is_empty() => {
                InstallProgress::Receiving { upload, offset: offset + bytes.len() as u64 }
            }
            InstallStep::Abort { .. } => InstallProgress::Aborted,
            InstallStep::File { .. } | InstallStep::Piece { .. } => {
                InstallProgress::Installed(Installed {
                    model: "intent".to_owned(),
                    version: "1.1.0".to_owned(),
                    previous: Some("1.0.0".to_owned()),
                    is_new: true,
                    trial_requests: 20,
                    written_bytes: 12,
                })
            }
        }));
    }
}
