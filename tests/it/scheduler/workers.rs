//! Queue, workers and deadlines together, with a pretended model.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use moed::engine::sim::Behaviour;
use moed::infer::{ClientId, Code};
use moed::scheduler::SchedulerOptions;
use moed::scheduler::quarantine::QuarantineOptions;

use super::{PATIENCE, Setup, delay, request, word};

#[test]
fn answers_every_request_when_the_queue_is_full() {
    let options = SchedulerOptions { queue_requests_max: 4, ..SchedulerOptions::default() };
    let setup = Setup::new(delay(20), options);
    let mut replies = Vec::new();
    for i in 0..100 {
        let (mut request, reply) = request(1, PATIENCE);
        request.client = ClientId(format!("client {}", i % 7).into());
        let start = Instant::now();
        setup.send(request);
        replies.push((start, reply));
    }
    let mut words = BTreeMap::new();
    for (_, reply) in replies {
        let outcome = reply.recv_timeout(PATIENCE).expect("an answer");
        *words.entry(word(&outcome)).or_insert(0) += 1;
        if let Err(error) = &outcome {
            assert!(error.retry_after.is_some(), "{error}");
        }
        assert!(reply.recv_timeout(Duration::ZERO).is_err(), "one answer, not two");
    }
    assert_eq!(words.values().sum::<u32>(), 100, "{words:?}");
    // The four that waited, one that ran, and perhaps some that came after that was done.
    assert!((4..20).contains(&words["ok"]), "{words:?}");
    assert_eq!(words["overloaded"], 100 - words["ok"], "{words:?}");
    let counted =
        |code| setup.count(&format!("moed_requests_total{{model=\"x\",code=\"{code}\"}}"));
    assert_eq!(counted("ok"), u64::from(words["ok"]));
    assert_eq!(counted("overloaded"), u64::from(words["overloaded"]));
}

#[test]
fn refuses_at_once_what_it_has_no_room_for() {
    let options = SchedulerOptions { queue_requests_max: 1, ..SchedulerOptions::default() };
    let setup = Setup::new(delay(500), options);
    let (first, first_reply) = request(1, PATIENCE);
    setup.send(first);
    // The worker may be slow to wake where others compute too.
    std::thread::sleep(Duration::from_millis(100));
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let (request, reply) = request(1, PATIENCE);
        setup.send(request);
        // Answered before `submit` returns, or taken.
        match reply.try_recv() {
            Ok(outcome) => assert_eq!(word(&outcome), "overloaded"),
            Err(_) => waiting.push(reply),
        }
    }
    // One waits, once the worker has taken the first.
    assert_eq!(waiting.len(), 1);
    assert!(first_reply.recv_timeout(PATIENCE).expect("an answer").is_ok());
}

#[test]
fn a_deadline_that_passes_while_nobody_is_free_is_answered_when_it_passes() {
    let setup = Setup::new(delay(1000), SchedulerOptions::default());
    let (first, first_reply) = request(1, PATIENCE);
    setup.send(first);
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    let (hurried, reply) = request(1, Duration::from_millis(100));
    setup.send(hurried);
    let outcome = reply.recv_timeout(PATIENCE).expect("an answer");
    let took = start.elapsed();
    assert_eq!(word(&outcome), "deadline_exceeded");
    assert!((100..600).contains(&took.as_millis()), "{took:?}");
    assert!(first_reply.recv_timeout(PATIENCE).expect("an answer").is_ok());
}

#[test]
fn a_panic_costs_one_request_and_too_many_cost_the_model_a_pause() {
    let pause_min = Duration::from_millis(300);
    let quarantine = QuarantineOptions { pause_min, ..QuarantineOptions::default() };
    let options = SchedulerOptions { quarantine, ..SchedulerOptions::default() };
    let setup = Setup::new(Behaviour { panic_every: 2, ..Behaviour::default() }, options);
    let ask = || {
        let (request, reply) = request(1, PATIENCE);
        setup.send(request);
        reply.recv_timeout(PATIENCE).expect("an answer")
    };
    let words: Vec<_> = (0..7).map(|_| word(&ask())).collect();
    let expected = ["ok", "internal", "ok", "internal", "ok", "internal", "unavailable"];
    assert_eq!(words, expected);
    assert!(ask().expect_err("quarantined").retry_after.is_some());
    assert!(setup.scheduler.quarantine("x").expect("a reason").contains("simulated panic"));
    std::thread::sleep(pause_min);
    assert_eq!((word(&ask()), setup.scheduler.quarantine("x")), ("ok", None));
    assert_eq!(setup.count("moed_panics_total{model=\"x\"}"), 3);
    // Another version starts without a past.
    setup.swap(delay(0));
    assert_eq!(word(&ask()), "ok");
}

#[test]
fn a_swap_under_load_loses_nothing_and_lets_the_old_version_go() {
    let setup = Setup::new(delay(1), SchedulerOptions::default());
    let old = std::sync::Arc::downgrade(&setup.slot.current().expect("it serves"));
    let mut replies = Vec::new();
    for i in 0..60 {
        let (request, reply) = request(1, PATIENCE);
        setup.send(request);
        replies.push(reply);
        if i == 30 {
            setup.swap(delay(0));
        }
    }
    for reply in replies {
        assert_eq!(word(&reply.recv_timeout(PATIENCE).expect("an answer")), "ok");
    }
    // An idle worker lets go too.
    let start = Instant::now();
    while old.strong_count() > 0 && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(old.strong_count(), 0);
}

#[test]
fn closing_answers_what_waits_and_refuses_what_comes() {
    let setup = Setup::new(delay(10), SchedulerOptions::default());
    let mut replies = Vec::new();
    for _ in 0..10 {
        let (request, reply) = request(1, PATIENCE);
        setup.send(request);
        replies.push(reply);
    }
    assert!(setup.scheduler.close(Instant::now() + PATIENCE));
    for reply in replies {
        assert_eq!(word(&reply.try_recv().expect("an answer, by now")), "ok");
    }
    let (request, reply) = request(1, PATIENCE);
    setup.send(request);
    assert_eq!(word(&reply.try_recv().expect("an answer")), "unavailable");
}

#[test]
fn closing_does_not_wait_for_ever() {
    let setup = Setup::new(delay(400), SchedulerOptions::default());
    let mut replies = Vec::new();
    for _ in 0..5 {
        let (request, reply) = request(1, PATIENCE);
        setup.send(request);
        replies.push(reply);
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(!setup.scheduler.close(Instant::now() + Duration::from_millis(50)));
    let words: Vec<_> = replies
        .iter()
        .map(|reply| word(&reply.recv_timeout(PATIENCE).expect("an answer")))
        .collect();
    assert_eq!(words, ["ok", "unavailable", "unavailable", "unavailable", "unavailable"]);
}

#[test]
fn a_request_that_can_not_be_served_is_told_what_to_change() {
    let setup = Setup::new(delay(0), SchedulerOptions::default());
    let cases: [(&str, Code, &str); 6] = [
        ("name", Code::NotFound, "not known; the models here are: x"),
        ("version", Code::NotFound, "version 7: not here; 0.0.0 serves"),
        ("output", Code::InvalidRequest, "output `z`: not known; the model gives: y"),
        ("input", Code::InvalidRequest, "the model takes: x"),
        ("shape", Code::InvalidRequest, "the model takes F32 [batch, 2]"),
        ("deadline", Code::DeadlineExceeded, "its deadline passed"),
    ];
    for (what, code, text) in cases {
        let (mut request, reply) = request(1, PATIENCE);
        match what {
            "name" => request.model.name = "quux\n".to_owned(),
            "version" => request.model.version = Some("7".to_owned()),
            "output" => request.options.outputs = vec!["y".to_owned(), "z".to_owned()],
            "input" => request.inputs[0].name = "w".to_owned(),
            "shape" => {
                let data = moed::tensor::Data::F32(vec![0.0; 3]);
                request.inputs[0].tensor =
                    moed::tensor::Tensor::new(&[1, 3], data).expect("a tensor");
            }
            _ => request.deadline = Instant::now(),
        }
        setup.send(request);
        let outcome = reply.recv_timeout(PATIENCE).expect("an answer");
        let error = outcome.expect_err(what);
        assert_eq!(error.code, code, "{what}: {error}");
        assert!(error.client.contains(text), "{what}: {error}");
        assert!(!error.client.contains('\n'), "{what}: {error}");
    }
}

#[test]
fn a_run_that_does_not_end_makes_the_process_not_live() {
    let stuck_after = Duration::from_millis(100);
    let options = SchedulerOptions { stuck_after, ..SchedulerOptions::default() };
    let setup = Setup::new(delay(500), options);
    assert!(setup.scheduler.is_live());
    let (request, reply) = request(1, PATIENCE);
    setup.send(request);
    std::thread::sleep(Duration::from_millis(250));
    assert!(!setup.scheduler.is_live());
    assert!(reply.recv_timeout(PATIENCE).expect("an answer").is_ok());
}
