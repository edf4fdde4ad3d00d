//! `moed models`, as an owner uses it.

use std::fs;

use super::process::{Daemon, MODEL, archive, said, signature};

/// With the keys that the archives of `tests/data/updates` are signed with.
fn keys(policy: &str) -> String {
    let key = fs::read_to_string(archive("trusted.pub")).expect("a key");
    format!("[install]\npublic_keys = [\"{}\"]\nsignature = \"{policy}\"\n", key.trim())
}

#[test]
fn a_model_is_installed_rolled_back_loaded_unloaded_and_removed() {
    let mut daemon = Daemon::start("");
    let good = archive("good-0.2.0.moed");
    let good = good.to_str().unwrap();
    let mut told = String::new();
    let mut run = |daemon: &Daemon, arguments: &[&str]| {
        let output = daemon.models(arguments);
        let shown = arguments.join(" ").replace(good, "good-0.2.0.moed");
        told += &format!("$ moed models {shown}\n{}", said(&output, daemon));
    };
    run(&daemon, &["list"]);
    run(&daemon, &["install", good]);
    run(&daemon, &["install", good]);
    run(&daemon, &["rollback", MODEL]);
    run(&daemon, &["rollback", MODEL]);
    daemon.restart();
    run(&daemon, &["list"]);
    run(&daemon, &["load", MODEL]);
    run(&daemon, &["unload", MODEL]);
    run(&daemon, &["load", MODEL]);
    run(&daemon, &["remove", MODEL, "0.9.0"]);
    run(&daemon, &["remove", MODEL]);
    run(&daemon, &["remove", MODEL]);
    run(&daemon, &["install", "--by-path", good]);
    assert_eq!(daemon.version(), "0.2.0");
    run(&daemon, &["remove", MODEL, "0.2.0"]);
    assert_eq!(daemon.version(), "0.1.0");
    assert_eq!(daemon.installed(), [""; 0]);
    run(&daemon, &["load", "nobody"]);
    insta::assert_snapshot!(told);
}

#[test]
fn what_is_wrong_with_an_archive_is_said_and_what_serves_goes_on() {
    let daemon = Daemon::start(&keys("required"));
    let install = |name: &str, more: &[&str]| {
        let path = archive(name);
        let arguments = [&["install", path.to_str().unwrap()], more].concat();
        let output = daemon.models(&arguments);
        assert!(!output.status.success(), "{name}");
        said(&output, &daemon).replace(path.parent().unwrap().to_str().unwrap(), "DATA")
    };
    let unsigned = daemon.path("unsigned.moed");
    fs::copy(archive("good-0.2.0.moed"), &unsigned).unwrap();
    let changed = daemon.path("changed.moed");
    let mut bytes = fs::read(&unsigned).unwrap();
    bytes[600] ^= 1;
    fs::write(&changed, bytes).unwrap();
    let no_archive = daemon.path("none.moed");
    fs::write(&no_archive, "no archive").unwrap();
    let stranger = archive("stranger.minisig");
    let genuine = archive("good-0.2.0.moed.minisig");
    let told = [
        install(unsigned.to_str().unwrap(), &[]),
        install("good-0.2.0.moed", &["--signature", stranger.to_str().unwrap()]),
        install("good-0.2.0.moed", &["--signature", unsigned.to_str().unwrap()]),
        install(changed.to_str().unwrap(), &["--signature", genuine.to_str().unwrap()]),
        install("wrong-0.3.0.moed", &[]),
        install("nothing.moed", &[]),
    ];
    assert_eq!(daemon.version(), "0.1.0");
    assert_eq!(daemon.installed(), [""; 0]);
    insta::assert_snapshot!(told.concat());
    let output = daemon.models(&["install", archive("good-0.2.0.moed").to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output, &daemon));
    assert_eq!(daemon.version(), "0.2.0");

    let lax = Daemon::start(&keys("optional"));
    let output = lax.models(&["install", no_archive.to_str().unwrap()]);
    assert!(said(&output, &lax).contains("archive: "), "{}", said(&output, &lax));
    let output = lax.models(&["install", unsigned.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output, &lax));
    // A signature that is there must be right all the same.
    let signed = lax.install(&changed, Some(&signature("good-0.2.0.moed.minisig"))).unwrap();
    assert_eq!(signed.0, 400);
    assert!(signed.1["error"].as_str().unwrap().starts_with("signature: not of these bytes"));
}

#[test]
fn a_bundle_s_directory_is_installed_and_the_limits_are_said() {
    let daemon = Daemon::start("[install]\narchive_bytes_max = 1048576\n");
    let bundle = daemon.path("bundle");
    fs::create_dir(&bundle).unwrap();
    for entry in fs::read_dir(daemon.path("packaged").join(MODEL)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, bundle.join(path.file_name().unwrap())).unwrap();
    }
    let manifest = fs::read_to_string(bundle.join("manifest.toml")).unwrap();
    let with_version = |version: &str| {
        let text = manifest.replace("\"0.1.0\"", &format!("\"{version}\""));
        fs::write(bundle.join("manifest.toml"), text).unwrap();
    };
    for version in ["0.2.0", "0.3.0", "0.4.0"] {
        with_version(version);
        let output = daemon.models(&["install", bundle.to_str().unwrap()]);
        assert!(output.status.success(), "{}", said(&output, &daemon));
        assert_eq!(daemon.version(), version);
    }
    let versions: Vec<_> =
        daemon.installed().into_iter().filter(|path| path.matches('/').count() == 1).collect();
    let kept = ["intent-tiny/0.3.0", "intent-tiny/0.4.0", "intent-tiny/trial"];
    assert_eq!(versions, kept, "two are kept");
    with_version("0.3.5");
    let output = daemon.models(&["install", bundle.to_str().unwrap()]);
    let text = said(&output, &daemon);
    assert!(text.contains("intent-tiny 0.3.5: older than 0.4.0, which serves"), "{text}");
    let large = format!(r#"{{"bytes": 1048577, "sha256": "{}"}}"#, "0".repeat(64));
    let (status, answer) = daemon.post("/v2/repository/install", large.as_bytes()).unwrap();
    assert_eq!(status, 413);
    assert_eq!(
        answer["error"],
        "archive: 1048577 bytes: over the limit of 1048576: make it smaller, or raise \
         `archive_bytes_max`"
    );

    let full = Daemon::start("[install]\nfree_bytes_min = 1099511627776\n");
    let text = said(&full.models(&["install", bundle.to_str().unwrap()]), &full);
    assert!(text.contains("disk: 1048577 MiB needed, "), "{text}");
    assert!(text.contains(" MiB free: remove old models with `moed models remove`"), "{text}");
}

#[test]
fn nothing_is_written_while_models_serve() {
    let daemon = Daemon::start("");
    assert_eq!(daemon.install(&archive("good-0.2.0.moed"), None).unwrap().0, 200);
    let written = || {
        let io = fs::read_to_string(format!("/proc/{}/io", daemon.id())).expect("Linux says so");
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        line.expect("a count").parse::<u64>().expect("a number")
    };
    // Its trial ends here, which is the last that is written.
    for _ in 0..25 {
        daemon.version();
    }
    crate::support::http::until("the trial is over", || {
        !daemon.path("installed/intent-tiny/trial").exists()
    });
    // Its folder is synced after that.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let before = written();
    for _ in 0..50 {
        daemon.version();
    }
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(written(), before);
}

#[test]
fn help_says_how_a_model_is_installed() {
    let daemon = Daemon::start("");
    for (name, arguments) in [("models", vec!["--help"]), ("install", vec!["install", "--help"])] {
        let output = daemon.models(&arguments);
        insta::assert_snapshot!(name, said(&output, &daemon));
    }
}
