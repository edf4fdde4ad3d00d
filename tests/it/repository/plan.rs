//! What is loaded next, without files and without waiting.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use moed::bundle::Version;
use moed::repository::plan::Plan;
use moed::repository::scan::Candidate;

/// Version `major`.0.0 with some fingerprint.
fn candidate(major: u32, fingerprint: u64) -> Candidate {
    let version = Some(Version { major, minor: 0, patch: 0 });
    let path = PathBuf::from(format!("models/x/{major}.0.0"));
    Candidate { path, is_archive: false, version, fingerprint }
}

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[test]
fn the_newest_version_is_loaded_once() {
    let (now, mut plan) = (Instant::now(), Plan::default());
    let found = [candidate(2, 20), candidate(1, 10)];
    assert_eq!(plan.next(now, &found), Some(&found[0]));
    plan.note_loaded(&found[0]);
    assert_eq!(plan.next(now, &found), None);
    let found = [candidate(3, 30), candidate(2, 20), candidate(1, 10)];
    assert_eq!(plan.next(now, &found), Some(&found[0]));
}

#[test]
fn a_failed_version_waits_longer_each_time_and_is_tried_at_once_when_it_changes() {
    let (start, mut plan) = (Instant::now(), Plan::default());
    let found = [candidate(2, 20), candidate(1, 10)];
    plan.note_failed(&found[0], start, 0.5);
    assert_eq!(plan.next(start, &found), Some(&found[1]), "at start, an older one will do");
    plan.note_loaded(&found[1]);
    assert_eq!(plan.next(start, &found), None);
    let mut now = start;
    for wait in [5, 10, 20, 40, 80, 160, 320, 600, 600] {
        let retry = now + Duration::from_secs(wait);
        assert_eq!(plan.next(retry - Duration::from_millis(1), &found), None, "{wait} s");
        assert_eq!(plan.next(retry, &found), Some(&found[0]), "{wait} s");
        now = retry;
        plan.note_failed(&found[0], now, 0.5);
    }
    let repaired = [candidate(2, 21), candidate(1, 10)];
    plan.note_found(&repaired);
    assert_eq!(plan.next(now, &repaired), Some(&repaired[0]));
}

#[test]
fn an_older_version_does_not_take_the_place_of_a_newer_one() {
    let (now, mut plan) = (Instant::now(), Plan::default());
    let found = [candidate(2, 20), candidate(1, 10)];
    plan.note_loaded(&found[0]);
    assert_eq!(plan.next(now, &found[1..]), None, "the newer one's files are gone, it serves on");
    let changed = [candidate(2, 22), candidate(1, 10)];
    assert_eq!(plan.next(now, &changed), Some(&changed[0]), "the same version with other files");
}

#[test]
fn a_rollback_stays_until_files_change_or_the_owner_asks() {
    let (now, mut plan) = (Instant::now(), Plan::default());
    let found = [candidate(3, 30), candidate(2, 20), candidate(1, 10)];
    plan.note_loaded(&found[1]);
    plan.note_loaded(&found[0]);
    assert_eq!(plan.rollback(&found), Some(&found[1]));
    plan.note_rolled_back(&found[1]);
    assert_eq!(plan.next(now, &found), None, "the newest one was rejected");
    assert_eq!(plan.rollback(&found), Some(&found[2]), "and further back");
    plan.note_rolled_back(&found[2]);
    assert_eq!(plan.rollback(&found), None);
    assert_eq!(plan.next(now, &found), None);
    let newer = [candidate(4, 40), found[0].clone(), found[1].clone(), found[2].clone()];
    plan.note_found(&newer);
    assert_eq!(plan.next(now, &newer), Some(&newer[0]));
    plan.load();
    assert_eq!(plan.next(now, &found), Some(&found[0]));
}

#[test]
fn an_unloaded_model_stays_so_and_a_missing_one_is_gone_at_the_second_look() {
    let (now, mut plan) = (Instant::now(), Plan::default());
    let found = [candidate(1, 10)];
    plan.note_loaded(&found[0]);
    plan.unload();
    assert_eq!(plan.next(now + seconds(3600), &found), None);
    plan.load();
    assert_eq!(plan.next(now, &found), Some(&found[0]));
    assert!(!plan.note_found(&[]));
    assert!(!plan.note_found(&found));
    assert!(!plan.note_found(&[]));
    assert!(plan.note_found(&[]));
}

#[test]
fn what_depends_on_the_home_is_loaded_again() {
    let (now, mut plan) = (Instant::now(), Plan::default());
    let found = [candidate(1, 10)];
    plan.note_loaded(&found[0]);
    plan.renew();
    assert_eq!(plan.next(now, &found), Some(&found[0]));
    plan.note_loaded(&found[0]);
    assert_eq!(plan.next(now, &found), None);
    assert_eq!(plan.rollback(&found), None, "it did not come in its own place");
}
