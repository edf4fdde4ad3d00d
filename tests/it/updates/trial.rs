//! A version that fails where its recorded answers are right: the whole daemon, with a model that
//! pretends.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use moed::bundle::{Bundle, Limits, pack};
use moed::config::Config;
use moed::daemon::Daemon;
use moed::engine::sim::{Behaviour, Sim};
use moed::infer::{
    Admin as _, Answer, ClientId, InferError, InferRequest, InstallStep, ModelRef, NamedTensor,
    Reply, RequestOptions, Service as _,
};
use moed::tensor::{Data, Tensor};

use crate::repository::serving::write_bundle;
use crate::support::http::{PATIENCE, until};

fn ask(daemon: &Daemon) -> Result<Answer, InferError> {
    let (sender, answer) = channel();
    let x = Tensor::new(&[1, 2], Data::F32(vec![0.0, 1.0])).unwrap();
    daemon.submit(InferRequest {
        id: "1".to_owned(),
        model: ModelRef { name: "x".to_owned(), version: None },
        inputs: vec![NamedTensor { name: "x".to_owned(), tensor: x }],
        options: RequestOptions::default(),
        deadline: Instant::now() + PATIENCE,
        client: ClientId("test".into()),
        reply: Reply::new(move |result| sender.send(result).expect("somebody waits")),
    });
    answer.recv_timeout(PATIENCE).expect("an answer")
}

#[test]
fn a_version_that_fails_on_real_requests_is_rolled_back() {
    let dir = tempfile::tempdir().unwrap();
    write_bundle(&dir.path().join("packaged/x"), "x", "1.0.0");
    write_bundle(&dir.path().join("new"), "x", "1.1.0");
    let archive = dir.path().join("x.moed");
    pack(&Bundle::open(&dir.path().join("new"), &Limits::default()).unwrap(), &archive).unwrap();
    let mut config = Config::default();
    config.models.directories = vec![dir.path().join("packaged")];
    config.install.directory = Some(dir.path().join("installed"));
    config.install.free_bytes_min = 0;
    // Both versions give the one recorded answer, and fail on each second request.
    let backend = Sim::new(Behaviour { error_every: 2, ..Behaviour::default() });
    let daemon = Daemon::start(&config, Box::new(backend), Vec::new(), Vec::new(), Box::new(|| {}));
    let daemon = daemon.expect("it starts");
    until("it is ready", || daemon.is_ready());
    let version = || daemon.models()[0].version.clone().unwrap_or_default();
    let (sender, installed) = channel();
    let step = InstallStep::File { path: archive, sha256: None, signature: None };
    daemon.install(step, Box::new(move |done| sender.send(done).expect("somebody waits")));
    installed.recv_timeout(PATIENCE).expect("a result").expect("it is installed");
    assert_eq!(version(), "1.1.0");
    let failed = (0..6).filter(|_| ask(&daemon).is_err()).count();
    assert_eq!(failed, 3);
    until("it is rolled back", || version() == "1.0.0");
    until("it says why", || daemon.models()[0].reason.is_some());
    assert_eq!(
        daemon.models()[0].reason.as_deref(),
        Some("version 1.1.0: rolled back: 3 of its first 6 requests failed; install a better one")
    );
    assert!(daemon.stop(Instant::now() + Duration::from_secs(5)));
}
