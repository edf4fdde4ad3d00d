//! What each route answers.

use std::time::Duration;

use moed::infer::{ModelRef, Priority};
use moed::tensor::{Data, Tensor};
use moed::transport::unix::Settings;
use serde_json::json;

use crate::support::http::Server;
use crate::support::service::FakeService;

#[test]
fn a_sentence_is_answered_as_a_plain_object() {
    let server = Server::start();
    let reply = server.connect().post("/v2/models/intent/infer", br#"{"text": "turn it on"}"#);
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let want = json!({
        "answer": {"intent": "HassTurnOn", "text": "turn it on"},
        "parameters": {
            "k": 2, "experts": [[3, 11], [0, 7]], "weight_bytes_read": 4096,
            "queue_us": 12, "compute_us": 340,
        },
    });
    assert_eq!(reply.json(), want);
}

#[test]
fn one_connection_serves_many_requests() {
    let server = Server::start();
    let mut client = server.connect();
    for _ in 0..50 {
        let reply = client.post("/v2/models/intent/infer", br#"{"text": "turn it on"}"#);
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(client.get("/v2/health/live").json(), json!({"live": true}));
    }
    assert_eq!(server.counters.connections_accepted.get(), 1);
    let answers: Vec<_> = server.counters.answers().filter(|(_, count)| *count > 0).collect();
    assert_eq!(answers, [(200, 100)]);
}

#[test]
fn the_protocol_s_request_is_answered_in_its_form() {
    let server = Server::start();
    let body = json!({
        "id": "a-7",
        "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [[1, 2.5, -3, 4]]}],
    });
    let path = "/v2/models/double/versions/1.0.0/infer";
    let reply = server.connect().post(path, body.to_string().as_bytes());
    assert_eq!(reply.status, 200, "{}", reply.text());
    let json = reply.json();
    assert_eq!(json["model_name"], "double");
    assert_eq!(json["model_version"], "1.0.0");
    assert_eq!(json["id"], "a-7");
    let want = json!([
        {"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [2.0, 5.0, -6.0, 8.0]}
    ]);
    assert_eq!(json["outputs"], want);
    let seen = server.service.last_seen();
    assert_eq!(seen.id, "a-7");
    let version = Some("1.0.0".to_owned());
    assert_eq!(seen.model, ModelRef { name: "double".to_owned(), version });
}

#[test]
fn options_and_the_client_s_name_reach_the_service() {
    let server = Server::start();
    let mut client = server.connect();
    let body = br#"{"text": "on", "k": 3, "budget": 0.5, "parameters": {"priority": 1}}"#;
    assert_eq!(client.post("/v2/models/intent/infer", body).status, 200);
    let seen = server.service.last_seen();
    assert_eq!((seen.k, seen.budget, seen.priority), (Some(3), Some(0.5), Priority::High));
    let (uid, pid) = (rustix::process::getuid().as_raw(), std::process::id());
    assert_eq!(seen.client, format!("uid:{uid}/pid:{pid}"));
    let text = Tensor::new(&[1], Data::Bytes(vec![b"on".to_vec()])).unwrap();
    assert_eq!(seen.inputs[0].tensor, text);
}

#[test]
fn binary_data_goes_both_ways() {
    let server = Server::start();
    let input = json!({
        "inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32",
                    "parameters": {"binary_data_size": 32}}],
        "parameters": {"binary_data_output": true},
    })
    .to_string();
    let values: Vec<f32> = (0..8_u8).map(|x| f32::from(x) / 3.0).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let headers = format!("Inference-Header-Content-Length: {}\r\n", input.len());
    let body = [input.as_bytes(), &bytes].concat();
    let reply = server.connect().post_with("/v2/models/double/infer", &headers, &body);
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
    let json_bytes: usize =
        reply.header("inference-header-content-length").expect("a length").parse().unwrap();
    let (json, binary) = reply.body.split_at(json_bytes);
    let json: serde_json::Value = serde_json::from_slice(json).expect("the header is JSON");
    let want = json!([{"name": "y", "datatype": "FP32", "shape": [2, 4],
                       "parameters": {"binary_data_size": 32}}]);
    assert_eq!(json["outputs"], want);
    let got: Vec<f32> =
        binary.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
    assert_eq!(got, values.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
}

#[test]
fn a_raw_body_is_the_only_input() {
    let server = Server::start();
    let mut client = server.connect();
    let header = "Inference-Header-Content-Length: 0\r\n";
    let reply = client.post_with("/v2/models/intent/infer", header, b"turn it on");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = Tensor::new(&[1], Data::Bytes(vec![b"turn it on".to_vec()])).unwrap();
    assert_eq!(server.service.last_seen().inputs[0].tensor, text);
    let bytes: Vec<u8> = [1_f32; 12].iter().flat_map(|x| x.to_le_bytes()).collect();
    let reply = client.post_with("/v2/models/double/infer", header, &bytes);
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(server.service.last_seen().inputs[0].tensor.shape().dims(), [3, 4]);
}

#[test]
fn classes_are_the_largest_values_with_their_places() {
    let server = Server::start();
    let body = json!({
        "inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32",
                    "data": [1, 3, 2, 3, -1, -2, -3, -4]}],
        "outputs": [{"name": "y", "parameters": {"classification": 2}}],
    });
    let reply = server.connect().post("/v2/models/double/infer", body.to_string().as_bytes());
    let want = json!([{
        "name": "y", "datatype": "BYTES", "shape": [2, 2],
        "data": ["6.000000:1", "6.000000:3", "-2.000000:0", "-4.000000:1"],
    }]);
    assert_eq!(reply.json()["outputs"], want);
}

#[test]
fn what_the_server_and_its_models_are_can_be_asked() {
    let server = Server::start();
    let mut client = server.connect();
    for path in ["/v2", "/v2/"] {
        let json = client.get(path).json();
        assert_eq!(json["name"], "moed");
        assert!(json["extensions"].as_array().is_some_and(|list| list.len() == 5));
    }
    assert_eq!(client.get("/v2/health/ready").json(), json!({"ready": true}));
    let models = client.get("/v2/models").json();
    assert_eq!(models["models"].as_array().map(Vec::len), Some(11));
    assert_eq!(models["models"][6]["name"], "intent");
    assert_eq!(models["models"][7]["state"], "UNAVAILABLE");
    insta::assert_snapshot!("metadata", client.get("/v2/models/intent").text());
    insta::assert_snapshot!("statistics", client.get("/v2/models/intent/stats").text());
    assert_eq!(client.get("/v2/models/stats").json()["model_stats"][0]["name"], "intent");
    let metrics = client.get("/metrics");
    assert!(metrics.text().ends_with("# EOF\n"));
    assert!(metrics.header("content-type").is_some_and(|x| x.contains("openmetrics-text")));
}

#[test]
fn readiness_is_a_status() {
    let service = FakeService { is_ready: false, ..FakeService::default() };
    let server = Server::with(service, Settings::default());
    let mut client = server.connect();
    let reply = client.get("/v2/health/ready");
    assert_eq!((reply.status, reply.json()), (503, json!({"ready": false})));
    assert_eq!(reply.header("retry-after"), Some("1"));
    let reply = client.get("/v2/models/intent/versions/1.0.0/ready");
    assert_eq!((reply.status, reply.json()), (200, json!({"name": "intent", "ready": true})));
    let reply = client.get("/v2/models/loading/ready");
    assert_eq!((reply.status, reply.json()), (503, json!({"name": "loading", "ready": false})));
    assert_eq!(client.get("/v2/models/none/ready").status, 404);
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::start();
    let mut client = server.connect();
    for path in ["/v2", "/v2/health/live", "/v2/models/intent", "/metrics"] {
        let length = client.get(path).body.len().to_string();
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let reply = client.read_head();
        assert_eq!((reply.status, reply.header("content-length")), (200, Some(length.as_str())));
    }
}

#[test]
fn any_host_and_a_name_with_escapes_will_do() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(b"GET /v2/models/int%65nt/ready HTTP/1.1\r\nHost: evil.example:99\r\n\r\n");
    assert_eq!(client.read().status, 200);
    client.send(b"GET http://somewhere/v2/health/live?x=1 HTTP/1.1\r\nHost: y\r\n\r\n");
    assert_eq!(client.read().status, 200);
    client.send(b"GET /v2/health/live HTTP/1.0\r\n\r\n");
    assert_eq!(client.read().status, 200);
    assert!(client.is_closed(), "HTTP/1.0 asks for it");
}

#[test]
fn the_owner_changes_the_repository_on_its_own_socket() {
    let server = Server::start();
    let mut admin = server.connect_admin();
    for verb in ["load", "unload", "rollback"] {
        let path = format!("/v2/repository/models/intent/{verb}");
        assert_eq!(admin.post(&path, b"").status, 200);
        assert_eq!(admin.post(&path, br#"{"parameters": {}}"#).status, 200);
        assert_eq!(server.connect().post(&path, b"").status, 404);
    }
    let all = admin.post("/v2/repository/index", b"").json();
    let ready = admin.post("/v2/repository/index", br#"{"ready": true}"#).json();
    assert_eq!(all.as_array().map(Vec::len), Some(11));
    assert_eq!(ready.as_array().map(Vec::len), Some(10));
    assert_eq!(
        all[0],
        json!({"name": "broken", "version": "1.0.0", "state": "READY", "reason": ""})
    );
    let done = server.service.admin.lock().unwrap().clone();
    let want = ["load", "load", "unload", "unload", "rollback", "rollback"];
    assert_eq!(done, want.map(|verb| format!("{verb} intent")));
    let reply = admin.post("/v2/models/intent/infer", br#"{"text": "on"}"#);
    assert_eq!(reply.status, 200, "it serves everything else as well");
}

#[test]
fn errors_say_when_to_come_back_and_echo_the_id() {
    let server = Server::start();
    let reply = server.connect().post("/v2/models/full/infer", br#"{"text": "on", "id": "z"}"#);
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("2")));
    let want = json!({"id": "z", "error": "queue: full: try again later", "code": "overloaded"});
    assert_eq!(reply.json(), want);
}

#[test]
fn no_answer_takes_longer_than_its_deadline() {
    let settings = Settings { deadline_max: Duration::from_millis(50), ..Settings::default() };
    let server = Server::with(FakeService::default(), settings);
    let body = br#"{"text": "on", "timeout": 3600000000}"#;
    let reply = server.connect().post("/v2/models/stuck/infer", body);
    assert_eq!((reply.status, reply.json()["code"].as_str()), (504, Some("deadline_exceeded")));
    assert_eq!(server.counters.clients_gone.get(), 0);
}
