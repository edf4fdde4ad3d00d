//! Clients that others made, against the socket: the scripts of `tests/clients`.
//!
//! Those whose program is not there are named. With `MOED_TEST_CLIENTS`, the folder where
//! `tests/run` has installed what they need, none may be missing.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::mqtt::clients::clients;
use crate::support::http::Server;

/// Runs a script with where the server is. `program` is what it needs.
fn run(program: Option<OsString>, script: &str, places: &[&OsStr]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    assert!(path.exists(), "{script}: it is gone");
    let is_there = |program: &OsString| {
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    };
    let Some(program) = program.filter(is_there) else {
        assert!(python().is_none(), "{script}: its program is missing");
        let text =
            format!("left out: tests/clients/{script}: its program is missing: run tests/run\n");
        // Not `eprint!`: the test runner would keep it to itself.
        std::io::stderr().write_all(text.as_bytes()).expect("stderr can be written");
        return;
    };
    let program = if program == "curl" { OsString::from("bash") } else { program };
    let output = Command::new(program).arg(path).args(places).output().expect("it starts");
    let (out, err) = (&output.stdout, &output.stderr);
    let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    assert!(output.status.success(), "{script}: {}\n{out}{err}", output.status);
}

/// A Python that has `tests/clients/requirements.txt`.
fn python() -> Option<OsString> {
    clients().map(|folder| folder.join("venv/bin/python").into_os_string())
}

fn run_over_the_socket(program: &str, script: &str) {
    let server = Server::start();
    let (socket, admin) = (server.socket(), server.admin_socket());
    run(Some(program.into()), script, &[socket.as_os_str(), admin.as_os_str()]);
}

#[test]
fn curl_is_answered() {
    run_over_the_socket("curl", "curl.sh");
}

#[test]
fn python_s_own_library_is_answered() {
    run_over_the_socket("python3", "stdlib.py");
}

#[test]
fn node_is_answered() {
    run_over_the_socket("node", "node.mjs");
}

#[test]
fn tritonclient_is_answered_over_loopback() {
    let server = Server::start();
    run(python(), "triton.py", &[OsStr::new(&server.tcp.to_string())]);
}
