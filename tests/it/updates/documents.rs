//! What installations are asked for in, over HTTP and MQTT alike, and how they are configured.

use moed::codec::{decode_install, decode_remove};
use moed::config::Config;
use moed::infer::InstallStep;
use proptest::prelude::*;
use serde_json::json;

use super::over_mqtt::base64;
use super::process::archive;
use crate::support::http::Server;

const SUM: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

#[test]
fn each_step_is_read_and_anything_else_is_refused_in_words() {
    let step = |body: &str| decode_install(body.as_bytes());
    let InstallStep::Begin { bytes, sha256, signature } =
        step(&format!(r#"{{"bytes": 7, "sha256": "{SUM}", "transaction": [1]}}"#)).unwrap()
    else {
        panic!("it begins")
    };
    assert_eq!((bytes, sha256[0], sha256[31], signature), (7, 0, 0xff, None));
    let path = "/srv/x.moed".into();
    assert_eq!(
        step(r#"{"path": "/srv/x.moed", "signature": "s"}"#).unwrap(),
        InstallStep::File { path, sha256: None, signature: Some("s".to_owned()) }
    );
    let (upload, bytes) = ("u".to_owned(), vec![0, 255, 7]);
    assert_eq!(
        step(r#"{"upload": "u", "offset": 3, "data": "AP\u0038H"}"#).unwrap(),
        InstallStep::Piece { upload: upload.clone(), offset: 3, bytes: bytes.clone() },
        "written otherwise"
    );
    assert_eq!(
        step(r#"{"upload": "u", "offset": 3, "data": "AP8H"}"#).unwrap(),
        InstallStep::Piece { upload: upload.clone(), offset: 3, bytes }
    );
    assert_eq!(step(r#"{"upload": "u", "abort": true}"#).unwrap(), InstallStep::Abort { upload });
    let mut told = String::new();
    for body in [
        "",
        "[]",
        "{}",
        r#"{"bytes": 7}"#,
        r#"{"bytes": -7}"#,
        r#"{"bytes": 7, "sha256": "00"}"#,
        r#"{"bytes": 7, "path": "/x"}"#,
        r#"{"path": "x.moed"}"#,
        r#"{"upload": "u"}"#,
        r#"{"upload": "u", "offset": 0, "data": "AP8"}"#,
        r#"{"upload": "u", "offset": 0, "data": "AP8="}"#,
        r#"{"upload": "u", "offset": 0, "data": "AP9="}"#,
        r#"{"upload": "u", "offset": 0, "data": "A==="}"#,
        r#"{"upload": "u", "offset": 0, "data": "====AAAA"}"#,
        r#"{"upload": "u", "offset": 0, "data": "AP 8"}"#,
        r#"{"file": "/x"}"#,
    ] {
        match decode_install(body.as_bytes()) {
            Ok(step) => told += &format!("{body}\n    {step:?}\n"),
            Err(error) => told += &format!("{body}\n    {error}\n"),
        }
    }
    insta::assert_snapshot!(told);
    assert_eq!(decode_remove(b" ").unwrap(), None);
    assert_eq!(decode_remove(br#"{"version": "1.0.0"}"#).unwrap().as_deref(), Some("1.0.0"));
    assert!(decode_remove(b"1.0.0").is_err());
}

proptest! {
    #[test]
    fn data_comes_out_as_it_went_in(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let body = json!({"upload": "u", "offset": 0, "data": base64(&bytes)}).to_string();
        let step = InstallStep::Piece { upload: "u".to_owned(), offset: 0, bytes };
        prop_assert_eq!(decode_install(body.as_bytes()).unwrap(), step);
    }

    #[test]
    fn no_text_is_base64_in_two_ways(text in "[AQgw+/=]{0,12}") {
        let body = json!({"upload": "u", "offset": 0, "data": text}).to_string();
        if let Ok(InstallStep::Piece { bytes, .. }) = decode_install(body.as_bytes()) {
            prop_assert_eq!(base64(&bytes), text);
        }
    }
}

#[test]
fn installations_are_served_on_the_owner_s_socket_only() {
    let server = Server::start();
    let begin = json!({"bytes": 5, "sha256": SUM}).to_string();
    let target = "/v2/repository/install";
    assert_eq!(server.connect().post(target, begin.as_bytes()).status, 404);
    let mut admin = server.connect_admin();
    let begun = admin.post(target, begin.as_bytes());
    assert_eq!(begun.status, 200, "{}", begun.text());
    assert_eq!(begun.json(), json!({"upload": "u1", "offset": 0, "piece_bytes_max": 1 << 20}));
    let piece = admin.post("/v2/repository/install/u1/0", b"\0\x01\xff..").json();
    assert_eq!(piece["offset"], 5);
    let done = admin.post("/v2/repository/install/u1/5", b"").json();
    let installed = json!({
        "model": "intent", "version": "1.1.0", "previous": "1.0.0", "is_new": true,
        "trial_requests": 20, "written_bytes": 12,
    });
    assert_eq!(done, installed);
    assert_eq!(admin.post("/v2/repository/install/u1/abort", b"").json(), json!({}));
    let remove = "/v2/repository/models/intent/remove";
    assert_eq!(admin.post(remove, br#"{"version": "1.0.0"}"#).status, 200);
    assert_eq!(admin.post("/v2/repository/install/u1/x", b"").status, 404);
    assert_eq!(admin.get(target).status, 405);
    let seen = server.service.admin.lock().unwrap().clone();
    assert_eq!(seen.len(), 5);
    assert_eq!(seen[1], r#"Piece { upload: "u1", offset: 0, bytes: [0, 1, 255, 46, 46] }"#);
    assert_eq!(seen[4], "remove 1.0.0 intent");
}

#[test]
fn what_is_configured_is_bounded() {
    let key = std::fs::read_to_string(archive("trusted.pub")).unwrap();
    let key = key.trim();
    let install = |lines: &str| Config::parse(&format!("[install]\n{lines}\n")).map(|c| c.install);
    assert!(!install("").unwrap().is_signature_required);
    let with_key = install(&format!("public_keys = [\"{key}\"]")).unwrap();
    assert!(with_key.is_signature_required, "whoever names keys wants them used");
    let both = install(&format!("public_keys = [\"{key}\"]\nsignature = \"optional\"")).unwrap();
    assert!(!both.is_signature_required);
    let mut told = String::new();
    for lines in [
        "signature = \"required\"",
        "signature = \"maybe\"",
        "public_keys = [\"none\"]",
        "archive_bytes_max = 5",
        "versions_max = 0",
        "trial_failures = 0",
        "trial_request = 5",
    ] {
        told += &format!("{lines}\n    {}\n", install(lines).unwrap_err());
    }
    insta::assert_snapshot!(told);
}
