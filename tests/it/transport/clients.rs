//! Clients that others made, against the socket: the scripts of `tests/clients`.
//!
//! Those whose program is not there are named. With `MOED_CLIENTS` set to a Python that has
//! `tests/clients/requirements.txt`, as `tests/run` does, none may be missing.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::support::http::Server;

/// Runs a script with the server's address. `program` is what it needs.
fn run(program: Option<OsString>, script: &str, address: &str) {
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
    let output = Command::new(program).arg(path).arg(address).output().expect("it starts");
    let (out, err) = (&output.stdout, &output.stderr);
    let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    assert!(output.status.success(), "{script}: {}\n{out}{err}", output.status);
}

fn python() -> Option<OsString> {
    std::env::var_os("MOED_CLIENTS")
}

fn run_over_the_socket(program: &str, script: &str) {
    let server = Server::start();
    run(Some(program.into()), script, server.socket().to_str().expect("its path is text"));
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
    run(python(), "triton.py", &server.tcp.to_string());
}
