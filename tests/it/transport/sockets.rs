//! Sockets: who gets one, with which mode, and what is left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use moed::transport::unix::{Access, ListenError, Listener};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn a_socket_has_its_mode_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    for (name, access, want) in
        [("a.sock", Access::Everybody, 0o660), ("b.sock", Access::Owner, 0o600)]
    {
        let path = directory.path().join("run").join(name);
        let listener = Listener::bind_unix(&path, access).expect("it can be bound");
        assert_eq!(mode(&path), want);
        drop(listener);
        assert!(!path.exists());
    }
    assert_eq!(mode(&directory.path().join("run")), 0o755);
    assert_eq!(fs::read_dir(directory.path().join("run")).unwrap().count(), 0);
}

#[test]
fn a_socket_that_nobody_listens_on_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("moed.sock");
    drop(UnixListener::bind(&path).expect("it can be bound"));
    assert!(path.exists(), "a daemon that dies leaves it");
    let first = Listener::bind_unix(&path, Access::Everybody).expect("it is replaced");
    let error = Listener::bind_unix(&path, Access::Everybody).expect_err("somebody listens");
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    drop(first);
}

#[test]
fn a_file_that_is_not_ours_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("moed.sock");
    fs::write(&path, "precious").unwrap();
    let error = Listener::bind_unix(&path, Access::Everybody).expect_err("it is no socket");
    assert!(matches!(error, ListenError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
    let listener = Listener::bind_unix(&path, Access::Everybody).expect("it can be bound");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "of another").unwrap();
    drop(listener);
    assert!(path.exists());
}

#[test]
fn a_path_that_can_not_be_bound_is_named() {
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().join("no/such/moed.sock"), directory.path().join("a".repeat(200))]
    {
        let error = Listener::bind_unix(&path, Access::Everybody).expect_err("it can't be bound");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn tcp_stays_on_this_host_unless_told_otherwise() {
    let anywhere = "0.0.0.0:0".parse().unwrap();
    let error = Listener::bind_tcp(anywhere, false).expect_err("it leaves the host");
    assert!(matches!(error, ListenError::LeavesHost { .. }), "{error}");
    assert!(Listener::bind_tcp(anywhere, true).is_ok());
    assert!(Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), false).is_ok());
}
