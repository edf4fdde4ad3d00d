//! A daemon that is killed while it installs serves the old version or the new one, and nothing is
//! left of what it was at.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::process::{Daemon, archive};
use crate::support::http::until;

const POINTS: u32 = 100;

/// The stages that can be told apart from outside.
fn stage(files: &[String]) -> &'static str {
    let has = |part: &str| files.iter().any(|file| file.contains(part));
    if has("0.2.0/manifest.toml") && !has(".staging/") {
        "published"
    } else if has(".moed-unpacking") {
        "unpacking"
    } else if has("archive.moed") {
        "receiving"
    } else if has(".staging/intent-tiny") {
        "testing"
    } else {
        "between"
    }
}

#[test]
fn killed_at_100_points_of_an_installation_it_serves_the_old_or_the_new_version() {
    let mut daemon = Daemon::start("");
    let good = archive("good-0.2.0.moed");
    let start = Instant::now();
    assert_eq!(daemon.install(&good, None).expect("it lives").0, 200);
    let took = start.elapsed();
    let (mut stages, mut versions) = (BTreeMap::new(), BTreeMap::new());
    for point in 0..POINTS {
        // From the old version on, each time.
        if daemon.version() == "0.2.0" {
            let (status, answer) =
                daemon.post("/v2/repository/models/intent-tiny/remove", b"").expect("it lives");
            assert_eq!(status, 200, "{answer}");
            assert_eq!(daemon.version(), "0.1.0");
        }
        // Spread over the whole of it, and a little further.
        let wait = took.mul_f64(f64::from(point) * 1.1 / f64::from(POINTS));
        std::thread::scope(|scope| {
            let installing = scope.spawn(|| daemon.install(&good, None));
            std::thread::sleep(wait);
            daemon.signal_kill();
            drop(installing.join().expect("the client ends"));
        });
        *stages.entry(stage(&daemon.installed())).or_insert(0) += 1;
        daemon.restart();
        let version = daemon.version();
        assert!(["0.1.0", "0.2.0"].contains(&&*version), "point {point}: {version}");
        let left = daemon.installed();
        let is_rubbish = |path: &&String| path.contains(".staging") || path.contains(".moed");
        assert_eq!(left.iter().find(is_rubbish), None, "point {point}: {left:?}");
        let whole = if version == "0.2.0" { 5 } else { 0 };
        let files = left.iter().filter(|path| path.starts_with("intent-tiny/0.2.0")).count();
        assert_eq!(files, whole, "point {point}: {left:?}");
        *versions.entry(version).or_insert(0) += 1;
    }
    assert_eq!(versions.len(), 2, "some before it was published, some after: {versions:?}");
    eprintln!("killed within {} ms: {stages:?}, then served: {versions:?}", took.as_millis());
}

#[test]
fn an_upload_that_ends_half_way_leaves_nothing_and_can_be_done_again() {
    let mut daemon = Daemon::start("");
    let bytes = std::fs::read(archive("good-0.2.0.moed")).unwrap();
    let begin = super::process::announcement(&bytes, None).to_string();
    let begin = || daemon.post("/v2/repository/install", begin.as_bytes()).expect("it lives");
    let (status, begun) = begin();
    assert_eq!(status, 200, "{begun}");
    let upload = begun["upload"].as_str().unwrap().to_owned();
    let piece = |offset: usize, bytes: &[u8]| {
        daemon.post(&format!("/v2/repository/install/{upload}/{offset}"), bytes).expect("it lives")
    };
    assert_eq!(piece(0, &bytes[..1000]).1["offset"], 1000);
    // The same again, as if its answer had been lost; then one that is too far on.
    assert_eq!(piece(0, &bytes[..1000]).1["offset"], 1000);
    let (status, refused) = piece(2000, &bytes[2000..]);
    assert_eq!(status, 400);
    assert_eq!(refused["error"], "offset: 2000: 1000 bytes have come: send from there");
    let (status, refused) = begin();
    assert_eq!(status, 503);
    assert_eq!(refused["error"], "install: another one is running: wait until it is done");
    daemon.restart();
    assert_eq!(daemon.installed(), [""; 0]);
    assert_eq!(daemon.install(&archive("good-0.2.0.moed"), None).expect("it lives").0, 200);
    assert_eq!(daemon.version(), "0.2.0");
}

#[test]
fn a_version_that_ends_the_daemon_again_and_again_is_withdrawn() {
    let mut daemon = Daemon::start("");
    assert_eq!(daemon.install(&archive("good-0.2.0.moed"), None).expect("it lives").0, 200);
    for starts in 1..=3 {
        daemon.restart();
        until("the trial is noted", || {
            let noted = std::fs::read_to_string(daemon.path("installed/intent-tiny/trial"));
            noted.is_ok_and(|text| text == format!("0.2.0 {starts}\n"))
        });
        assert_eq!(daemon.version(), "0.2.0");
    }
    daemon.restart();
    assert_eq!(daemon.version(), "0.1.0");
    assert!(daemon.log().contains("withdrawn: the daemon has ended 3 times"), "{}", daemon.log());
    std::thread::sleep(Duration::from_millis(100));
    daemon.restart();
    assert_eq!(daemon.version(), "0.1.0", "it stays so");
    let (status, _) = daemon.post("/v2/repository/models/intent-tiny/load", b"").unwrap();
    assert_eq!(status, 200);
    assert_eq!(daemon.version(), "0.2.0", "its owner wants it");
}
