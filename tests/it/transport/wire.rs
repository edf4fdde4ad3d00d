//! Every wrong request of `tests/data/wire` gets the status, the code and the sentence that
//! `index.json` has for it.
//!
//! A request file is a request with plain line ends in its head; `{bytes}` is the body's length,
//! `{a*N}` is N times `a`. To enter a new one, add its file and a line with empty texts to the
//! index, run the test with `MOED_WIRE=write`, and read what it wrote.

use serde::{Deserialize, Serialize};

use crate::support::data;
use crate::support::http::Server;

#[derive(Serialize, Deserialize)]
struct Case {
    /// The file's name, without `.http`.
    request: String,
    /// `open` or `admin`.
    socket: String,
    #[serde(default)]
    status: u16,
    #[serde(default)]
    code: String,
    #[serde(default)]
    error: String,
}

/// The bytes that a request file stands for.
fn request(text: &str) -> Vec<u8> {
    let (head, body) = text.split_once("\n\n").expect("a blank line ends the head");
    let body = repeated(body.strip_suffix('\n').unwrap_or(body));
    let head = repeated(head).replace("{bytes}", &body.len().to_string()).replace('\n', "\r\n");
    format!("{head}\r\n\r\n{body}").into_bytes()
}

fn repeated(text: &str) -> String {
    let Some((before, rest)) = text.split_once("{a*") else { return text.to_owned() };
    let (count, after) = rest.split_once('}').expect("it is closed");
    format!("{before}{}{after}", "a".repeat(count.parse().expect("a number")))
}

#[test]
fn every_wrong_request_is_told_what_to_change() {
    let index = data("wire").join("index.json");
    let text = std::fs::read_to_string(&index).expect("the index is there");
    let mut cases: Vec<Case> = serde_json::from_str(&text).expect("it is a list of cases");
    assert!(cases.len() >= 30);
    let server = Server::start();
    let mut wrong = Vec::new();
    for case in &mut cases {
        let file = data("wire").join(format!("{}.http", case.request));
        let text = std::fs::read_to_string(&file).expect("the request is there");
        let mut client =
            if case.socket == "admin" { server.connect_admin() } else { server.connect() };
        client.send(&request(&text));
        let reply = client.read();
        let json = reply.json();
        let word = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        let (code, error) = (word("code"), word("error"));
        if (case.status, &case.code, &case.error) != (reply.status, &code, &error) {
            wrong.push(format!("{}: {} {code}: {error}", case.request, reply.status));
        }
        assert_eq!(reply.header("content-type"), Some("application/json"), "{}", case.request);
        assert_eq!(reply.status == 405, reply.header("allow").is_some(), "{}", case.request);
        let may_come_back = matches!(reply.status, 429 | 503);
        assert_eq!(may_come_back, reply.header("retry-after").is_some(), "{}", case.request);
        (case.status, case.code, case.error) = (reply.status, code, error);
    }
    if std::env::var("MOED_WIRE").is_ok_and(|value| value == "write") {
        let text = serde_json::to_string_pretty(&cases).expect("it can be written") + "\n";
        std::fs::write(&index, text).expect("the index can be written");
    } else {
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    let files = std::fs::read_dir(data("wire")).expect("the folder is there");
    let requests = files.filter(|file| {
        file.as_ref().is_ok_and(|file| file.path().extension().is_some_and(|x| x == "http"))
    });
    assert_eq!(requests.count(), cases.len(), "each request is in the index");
    assert_eq!(server.connect().get("/v2/health/live").status, 200, "it still serves");
}
