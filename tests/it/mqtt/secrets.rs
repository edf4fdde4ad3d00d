//! TLS, certificates and passwords: with a real broker, and nowhere to be seen.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use moed::transport::mqtt::parts::password;
use moed::transport::mqtt::{Settings, Tls};

use super::has_mosquitto;
use crate::support::data;
use crate::support::http::until;
use crate::support::mqtt::broker::Broker;
use crate::support::mqtt::client::Client;
use crate::support::mqtt::daemon::{Daemon, settings};
use crate::support::mqtt::packet::{Connect, Message};
use crate::support::service::FakeService;

const PASSWORD: &str = "correct horse battery staple";

fn tls(file: &str) -> PathBuf {
    data("tls").join(file)
}

fn tls_lines(more: &str) -> String {
    format!(
        "cafile {}\ncertfile {}\nkeyfile {}\n{more}",
        tls("ca.crt").display(),
        tls("broker.crt").display(),
        tls("broker.key").display()
    )
}

fn secure(broker: &Broker, tls: Tls) -> Settings {
    let (host, port) = ("localhost".to_owned(), broker.address.port());
    let at = moed::transport::mqtt::Broker::Network { host, port, is_tls: true };
    Settings { tls, broker: at, ..settings(broker.address) }
}

fn never_connects(settings: Settings) {
    let daemon = Daemon::unconnected(settings, FakeService::default());
    until("it has tried", || daemon.counters.connection_errors.get() > 0);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(daemon.counters.connects.get(), 0);
}

#[test]
fn speaks_tls_with_a_broker_whose_authority_it_knows() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::with(&tls_lines("allow_anonymous true\n"));
    let known = Tls { ca_file: Some(tls("ca.crt")), ..Tls::default() };
    let _daemon = Daemon::with(secure(&broker, known), FakeService::default());
    let other = Tls { ca_file: Some(tls("other.crt")), ..Tls::default() };
    never_connects(secure(&broker, other));
    // The system does not trust the tests.
    never_connects(secure(&broker, Tls::default()));
    let absent = Tls { ca_file: Some("/nowhere/ca.crt".into()), ..Tls::default() };
    never_connects(secure(&broker, absent));
}

#[test]
fn shows_its_certificate_to_a_broker_that_wants_one() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::with(&tls_lines("require_certificate true\nallow_anonymous true\n"));
    let none = Tls { ca_file: Some(tls("ca.crt")), ..Tls::default() };
    never_connects(secure(&broker, none.clone()));
    let with = Tls {
        certificate_file: Some(tls("client.crt")),
        key_file: Some(tls("client.key")),
        ..none
    };
    let _daemon = Daemon::with(secure(&broker, with), FakeService::default());
}

fn password_file(directory: &Path, text: &str, mode: u32) -> PathBuf {
    let path = directory.join("password");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_password_comes_from_a_file_that_not_everybody_may_read() {
    let directory = tempfile::tempdir().unwrap();
    let read = |text: &str, mode| {
        let path = password_file(directory.path(), text, mode);
        let settings = Settings { password_file: Some(path), ..Settings::default() };
        password(&settings).map_err(|error| error.to_string())
    };
    let found = read("secret\r\nmore\n", 0o600).unwrap().unwrap();
    assert_eq!(found.reveal(), "secret");
    assert_eq!(format!("{found:?}"), "Password(..)");
    assert_eq!(read("secret", 0o640).unwrap().unwrap().reveal(), "secret");
    for (text, mode, cause) in [
        ("secret", 0o644, "everybody may read it"),
        ("", 0o600, "its first line is empty"),
        ("\nsecret", 0o600, "its first line is empty"),
    ] {
        let error = read(text, mode).unwrap_err();
        assert!(error.contains(cause) && !error.contains("secret\n"), "{error}");
    }
    let absent = Settings { password_file: Some("/nowhere".into()), ..Settings::default() };
    assert!(password(&absent).unwrap_err().to_string().contains("/nowhere"));
    assert!(password(&Settings::default()).unwrap().is_none());
}

/// A broker that wants a password, and lets each client write only where its list says.
fn strict(rules: &str) -> Broker {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("passwords");
    let mut hashed = String::new();
    for user in ["moed", "client"] {
        let status = Command::new("mosquitto_passwd")
            .args(["-b", "-c"])
            .arg(&file)
            .args([user, PASSWORD])
            .status();
        assert!(status.expect("mosquitto_passwd runs").success());
        hashed += &fs::read_to_string(&file).unwrap();
    }
    Broker::with_files(
        "password_file DIRECTORY/passwords\nacl_file DIRECTORY/rules\n",
        &[("passwords", hashed.as_bytes()), ("rules", rules.as_bytes())],
    )
}

fn named(broker: &Broker, directory: &Path, password: &str) -> Settings {
    Settings {
        username: Some("moed".to_owned()),
        password_file: Some(password_file(directory, password, 0o600)),
        ..settings(broker.address)
    }
}

fn client(broker: &Broker) -> Client {
    let connect = Connect {
        level: 5,
        clean: true,
        client: "client".to_owned(),
        username: Some("client".to_owned()),
        password: Some(PASSWORD.to_owned()),
        ..Connect::default()
    };
    Client::connect(broker.address, &connect).expect("let in")
}

const RULES: &str = "user moed\ntopic readwrite moed/#\nuser client\ntopic readwrite #\n";

#[test]
fn gives_the_password_to_the_broker_and_to_nobody_else() {
    if !has_mosquitto() {
        return;
    }
    let broker = strict(RULES);
    let directory = tempfile::tempdir().unwrap();
    let _daemon = Daemon::with(named(&broker, directory.path(), PASSWORD), FakeService::default());
    for file in ["cmdline", "environ"] {
        let text = fs::read(format!("/proc/self/{file}")).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains(PASSWORD), "{file}");
    }
    for topic in ["moed/test/info", "moed/test/health"] {
        let mut client = client(&broker);
        client.subscribe(topic);
        assert!(!client.receive().text().contains(PASSWORD));
    }
    never_connects(Settings {
        node: "wrong".to_owned(),
        ..named(&broker, directory.path(), "wrong")
    });
}

#[test]
fn a_password_that_has_been_replaced_is_used_at_the_next_connection() {
    if !has_mosquitto() {
        return;
    }
    let mut broker = strict(RULES);
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::with(named(&broker, directory.path(), PASSWORD), FakeService::default());
    broker.kill();
    let hashed = broker.directory.path().join("passwords");
    let status = Command::new("mosquitto_passwd")
        .args(["-b"])
        .arg(&hashed)
        .args(["moed", "another"])
        .status();
    assert!(status.unwrap().success());
    password_file(directory.path(), "another", 0o600);
    until("it is noticed", || !daemon.counters.is_connected());
    broker.restart();
    daemon.wait_until_connected();
}

#[test]
fn a_reply_that_the_brokers_rules_forbid_is_counted() {
    if !has_mosquitto() {
        return;
    }
    let broker = strict(RULES);
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::with(named(&broker, directory.path(), PASSWORD), FakeService::default());
    let mut client = client(&broker);
    let request = Message::new("moed/test/models/intent/infer", r#"{"text": "hello"}"#);
    client.publish(request.reply_to("replies/forbidden", "a").qos(1));
    until("it is counted", || daemon.counters.replies_refused.get() == 1);
}
