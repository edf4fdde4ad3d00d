//! What each route answers.

use serde_json::json;

use crate::support::http::Server;

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
}
