//! What the session refuses, how it stops, and its parts.

use std::time::{Duration, Instant};

use moed::transport::mqtt::parts::{Acknowledgements, Backoff, Event, Negotiation, Received};
use moed::transport::mqtt::{Protocol, Settings};
use proptest::prelude::*;

use super::session::{Bench, INFER, code, ok, request, second, with};

#[test]
fn refuses_what_can_not_be_answered_so_and_says_why() {
    let long = "x".repeat(300);
    for (what, expected, change) in [
        ("a wildcard", "invalid_request", change(|m| reply_to(m, "a/+"))),
        ("the broker's own", "invalid_request", change(|m| reply_to(m, "$SYS/x"))),
        ("an empty topic", "invalid_request", change(|m| reply_to(m, ""))),
        ("a request topic", "invalid_request", change(|m| reply_to(m, INFER))),
        ("another's request topic", "invalid_request", {
            change(|m| reply_to(m, "moed/other/models/intent/infer"))
        }),
        ("the pool", "invalid_request", change(|m| reply_to(m, "moed/pool/models/a/infer"))),
        ("a status", "invalid_request", change(|m| reply_to(m, "moed/test/status"))),
        ("a retained request", "invalid_request", change(|m| m.is_retained = true)),
        ("a content type", "invalid_request", {
            change(|m| m.properties.content_type = Some("image/png".to_owned()))
        }),
        ("a header", "invalid_request", {
            change(|m| {
                m.properties.content_type = Some("application/octet-stream".to_owned());
                let header = ("inference-header-content-length".to_owned(), "x".to_owned());
                m.properties.user = vec![header];
            })
        }),
        ("a long topic", "invalid_request", {
            let long = long.clone();
            change(move |m| reply_to(m, &long))
        }),
        ("a long correlation", "invalid_request", {
            let long = long.clone();
            change(move |m| m.properties.correlation = Some(long.into()))
        }),
    ] {
        let mut bench = Bench::connected();
        assert!(bench.ask(with(request(1, "a"), change)).is_none(), "{what}");
        bench.settle();
        let replies = bench.replies();
        assert_eq!(replies.len(), 1, "{what}");
        assert_eq!(code(&replies[0]), expected, "{what}");
        let is_safe = ["replies/a", "moed/test/models/intent/result"];
        assert!(is_safe.contains(&replies[0].topic.as_str()), "{what}: {}", replies[0].topic);
        assert_eq!(bench.acknowledged, [1], "{what}");
    }
}

type Change = Box<dyn FnOnce(&mut Received)>;

fn change(change: impl FnOnce(&mut Received) + 'static) -> Change {
    Box::new(change)
}

fn reply_to(message: &mut Received, topic: &str) {
    message.properties.response_topic = Some(topic.to_owned());
}

#[test]
fn a_reply_is_never_taken_for_a_request() {
    let mut bench = Bench::connected();
    let reply = with(request(1, "a"), |m| {
        m.properties.user = vec![("moed".to_owned(), "1".to_owned())];
    });
    assert!(bench.ask(reply).is_none());
    bench.settle();
    assert_eq!(bench.replies(), []);
    assert_eq!(bench.counters.loops_cut.get(), 1);
}

#[test]
fn a_retained_request_of_a_broker_of_old_is_ignored() {
    let mut bench = Bench::new(Settings::default());
    bench.connect_with(false, 1 << 20);
    assert!(bench.ask(with(request(1, "a"), |m| m.is_retained = true)).is_none());
    bench.settle();
    assert_eq!(bench.replies(), []);
    assert_eq!((bench.counters.retained_ignored.get(), &*bench.acknowledged), (1, &[1][..]));
}

#[test]
fn an_answer_that_the_broker_would_not_take_becomes_a_small_error() {
    let mut bench = Bench::new(Settings::default());
    bench.connect_with(true, 1000);
    let work = bench.ask(request(1, "a")).unwrap();
    bench.session.identify(work.ticket, Some("7".to_owned()), None, bench.now).unwrap();
    bench.session.answer(work.ticket, ok(&"x".repeat(1000)), bench.now);
    bench.settle();
    let reply = &bench.replies()[0];
    assert_eq!(code(reply), "too_large");
    assert!(String::from_utf8_lossy(&reply.payload).contains(r#""id":"7""#));
    assert_eq!(reply.properties.correlation.as_deref(), Some(b"a".as_slice()));
    assert!(reply.wire_bytes() <= 1000);
    assert_eq!(bench.session.unsent(), 0);
}

#[test]
fn a_broker_that_takes_next_to_nothing_gets_nothing() {
    let mut bench = Bench::new(Settings::default());
    bench.connect_with(true, 60);
    assert!(bench.ask_and_answer(request(1, "a")));
    bench.settle();
    assert_eq!(bench.published, []);
    assert_eq!(bench.counters.replies_dropped.get(), 1);
    assert_eq!(bench.acknowledged, [1]);
}

#[test]
fn a_reply_that_the_broker_refuses_is_counted() {
    let mut bench = Bench::connected();
    assert!(bench.ask_and_answer(request(1, "a")));
    bench.act();
    let (packet, _) = bench.open.remove(0);
    bench.handle(Event::Acknowledged { packet, is_taken: false });
    bench.settle();
    assert_eq!(bench.counters.replies_refused.get(), 1);
    assert_eq!(bench.acknowledged, [1]);
}

#[test]
fn replies_are_held_within_bounds() {
    let settings = Settings { replies_max: 3, requests_max: 3, ..Settings::default() };
    let mut bench = Bench::new(settings);
    bench.connect();
    for n in 0..8 {
        assert!(bench.ask_and_answer(request(0, &n.to_string())));
    }
    assert_eq!(bench.session.unsent(), 3);
    assert_eq!(bench.counters.replies_dropped.get(), 5);
}

#[test]
fn stops_when_the_last_request_is_answered_and_the_broker_knows() {
    let mut bench = Bench::connected();
    let work = bench.ask(request(1, "a")).unwrap();
    bench.handle(Event::Stop);
    assert!(bench.ask(request(2, "b")).is_none());
    bench.settle();
    assert_eq!(code(&bench.replies()[0]), "unavailable");
    assert!(!bench.is_parted);
    bench.session.answer(work.ticket, ok("{}"), bench.now);
    bench.act();
    let last = bench.published.last().unwrap();
    assert!(!bench.is_parted, "before the broker has `stopped`");
    let published: Vec<&[u8]> = bench.published.iter().map(|m| &*m.payload).collect();
    assert!(published.contains(&b"stopped".as_slice()), "{last:?}");
    bench.settle();
    assert!(bench.is_parted && bench.session.is_over());
    assert_eq!(bench.acknowledged, [1, 2]);
}

#[test]
fn stops_at_once_without_a_broker_and_in_time_with_a_silent_one() {
    let mut bench = Bench::new(Settings::default());
    bench.handle(Event::Stop);
    assert!(bench.session.is_over());
    let mut bench = Bench::connected();
    bench.ask(request(1, "a")).unwrap();
    bench.handle(Event::Stop);
    for _ in 0..15 {
        bench.act();
        bench.pass(second(1));
    }
    bench.act();
    assert!(bench.session.is_over());
}

#[test]
fn home_assistants_birth_makes_it_announce_again() {
    let settings =
        Settings { discovery_prefix: Some("homeassistant".to_owned()), ..Settings::default() };
    let mut bench = Bench::new(settings);
    bench.connect();
    let mut birth = with(request(0, "a"), |m| m.topic = "homeassistant/status".to_owned());
    birth.payload = b"online".as_slice().into();
    assert!(bench.ask(birth).is_none());
    bench.settle();
    assert_eq!(bench.published.len(), 1);
    assert_eq!(bench.published[0].topic, "moed/test/status");
}

#[test]
fn backs_off_with_jitter_up_to_a_bound() {
    let waits = |held: Duration, is_refused| {
        let mut backoff = Backoff::default();
        (0..12).map(|_| backoff.wait(held, is_refused)).collect::<Vec<_>>()
    };
    let absent = waits(Duration::ZERO, false);
    assert!(absent[0] <= Duration::from_millis(100));
    assert!(absent.iter().all(|wait| *wait <= second(2)));
    assert!(absent[11] >= second(1));
    assert_ne!(absent, waits(Duration::ZERO, false), "two daemons do not wait alike");
    assert!(waits(Duration::ZERO, true).iter().all(|wait| *wait >= second(15)));
    assert!(waits(second(60), false).iter().all(|wait| *wait <= Duration::from_millis(100)));
}

#[test]
fn falls_back_only_from_a_broker_that_has_never_spoken_v5() {
    let mut old = Negotiation::new(Protocol::Automatic);
    old.aborted();
    assert!(old.is_v5(), "once may be chance");
    old.aborted();
    assert!(!old.is_v5());
    old.connected();
    old.aborted();
    assert!(!old.is_v5());
    old.aborted();
    assert!(old.is_v5(), "it may have been replaced by a new one");
    let mut new = Negotiation::new(Protocol::Automatic);
    new.connected();
    (0..9).for_each(|_| new.aborted());
    assert!(new.is_v5());
    for (protocol, is_v5) in [(Protocol::V5, true), (Protocol::V311, false)] {
        let mut pinned = Negotiation::new(protocol);
        (0..9).for_each(|_| pinned.aborted());
        assert_eq!(pinned.is_v5(), is_v5);
    }
}

#[test]
fn an_acknowledgement_of_an_ended_connection_goes_nowhere() {
    let now = Instant::now();
    let mut acks = Acknowledgements::new(second(5), 64);
    let old = acks.received(1, now);
    acks.clear();
    let new = acks.received(2, now);
    acks.done(old);
    assert_eq!(acks.next(now, true), None);
    acks.done(new);
    assert_eq!(acks.next(now, true), Some(2));
}

/// What a simulation does next.
#[derive(Debug, Clone)]
enum Step {
    Ask { correlation: u8, qos: u8 },
    Answer { which: usize },
    Act,
    BrokerConfirms,
    BrokerIsLost,
    BrokerIsBack,
    Pass { tenths: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..6u8, 0..2u8).prop_map(|(correlation, qos)| Step::Ask { correlation, qos }),
        4 => (0..8usize).prop_map(|which| Step::Answer { which }),
        4 => Just(Step::Act),
        3 => Just(Step::BrokerConfirms),
        1 => Just(Step::BrokerIsLost),
        2 => Just(Step::BrokerIsBack),
        1 => (1..30u64).prop_map(|tenths| Step::Pass { tenths }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happens, each request has one fate in the end, and bounds hold.
    #[test]
    fn every_request_has_exactly_one_fate(steps in prop::collection::vec(step(), 1..120)) {
        let settings = Settings {
            requests_max: 4,
            replies_max: 6,
            remembered_max: 3,
            deadline_default: second(3),
            ..Settings::default()
        };
        let mut bench = Bench::new(settings);
        bench.connect();
        let (mut is_up, mut packet, mut tickets) = (true, 0, Vec::new());
        let mut asked = 0;
        let begin = |bench: &mut Bench, tickets: &mut Vec<u64>| {
            while let Some(work) = bench.session.next_work(bench.now) {
                if bench.session.identify(work.ticket, None, None, bench.now).is_some() {
                    tickets.push(work.ticket);
                }
            }
        };
        for step in steps {
            match step {
                Step::Ask { correlation, qos } if is_up => {
                    asked += 1;
                    packet += u16::from(qos);
                    let packet = if qos == 0 { 0 } else { packet };
                    bench.handle(Event::Received(request(packet, &correlation.to_string())));
                }
                Step::Answer { which } if !tickets.is_empty() => {
                    let ticket = tickets.remove(which % tickets.len());
                    bench.session.answer(ticket, ok("{}"), bench.now);
                }
                Step::Act if is_up => bench.act(),
                Step::BrokerConfirms if is_up => bench.settle(),
                Step::BrokerIsLost if is_up => {
                    is_up = false;
                    bench.disconnect();
                }
                Step::BrokerIsBack if !is_up => {
                    is_up = true;
                    bench.connect();
                }
                Step::Pass { tenths } => bench.pass(Duration::from_millis(100 * tenths)),
                _ => {}
            }
            begin(&mut bench, &mut tickets);
            // Four, and 16 times as many before them.
            prop_assert!(bench.session.waiting() <= 68);
            prop_assert!(bench.session.unsent() <= 6);
        }
        if !is_up {
            bench.connect();
        }
        while let Some(ticket) = tickets.pop() {
            bench.session.answer(ticket, ok("{}"), bench.now);
            begin(&mut bench, &mut tickets);
        }
        bench.settle();
        bench.pass(second(60));
        bench.settle();
        prop_assert_eq!(bench.session.waiting(), 0);
        prop_assert_eq!(bench.session.unsent(), 0);
        prop_assert_eq!(bench.counters.requests.get(), asked);
        prop_assert_eq!(bench.counters.settled(), asked);
    }
}
