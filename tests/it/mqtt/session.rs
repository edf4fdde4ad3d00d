//! The session does no I/O: what it wants is a function of what happened, and of the time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moed::transport::mqtt::parts::{
    Action, Event, Link, Outgoing, Properties, Qos, Received, Session, Work, Written,
};
use moed::transport::mqtt::{Counters, Settings};

pub(super) const INFER: &str = "moed/test/models/intent/infer";

pub(super) fn second(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A session, and a broker that confirms what it is told to.
pub(super) struct Bench {
    pub(super) session: Session,
    pub(super) counters: Arc<Counters>,
    pub(super) now: Instant,
    pub(super) next_packet: u16,
    pub(super) published: Vec<Outgoing>,
    /// Written at QoS 1, not acknowledged by the broker.
    pub(super) open: Vec<(u16, Outgoing)>,
    pub(super) acknowledged: Vec<u16>,
    pub(super) subscribed: usize,
    pub(super) is_parted: bool,
}

impl Bench {
    pub(super) fn new(settings: Settings) -> Self {
        let counters = Arc::new(Counters::default());
        let settings = Settings { node: "test".to_owned(), ..settings };
        Self {
            session: Session::new(Arc::new(settings), Arc::clone(&counters)),
            counters,
            now: Instant::now(),
            next_packet: 0,
            published: Vec::new(),
            open: Vec::new(),
            acknowledged: Vec::new(),
            subscribed: 0,
            is_parted: false,
        }
    }

    pub(super) fn connected() -> Self {
        let mut bench = Self::new(Settings::default());
        bench.connect();
        bench
    }

    pub(super) fn connect(&mut self) {
        self.connect_with(true, 1 << 20);
    }

    pub(super) fn connect_with(&mut self, is_v5: bool, packet_bytes_max: usize) {
        self.handle(Event::Connected(Link { is_v5, packet_bytes_max }));
        self.settle();
        self.published.clear();
    }

    pub(super) fn handle(&mut self, event: Event) {
        self.session.handle(event, self.now);
    }

    /// Does all that the session wants; the broker acknowledges nothing.
    pub(super) fn act(&mut self) {
        while let Some(action) = self.session.next_action(self.now) {
            match action {
                Action::Publish(message) => {
                    self.published.push(message.clone());
                    let mut packet = 0;
                    if message.qos == Qos::AtLeastOnce {
                        self.next_packet += 1;
                        packet = self.next_packet;
                        self.open.push((packet, message));
                    }
                    self.handle(Event::Written { message: Some(packet) });
                    continue;
                }
                Action::Acknowledge(packet) => self.acknowledged.push(packet),
                Action::Subscribe(filters) => self.subscribed = filters.len(),
                Action::Disconnect => self.is_parted = true,
            }
            self.handle(Event::Written { message: None });
        }
    }

    /// Does all that the session wants; the broker acknowledges everything.
    pub(super) fn settle(&mut self) {
        loop {
            self.act();
            if self.open.is_empty() {
                return;
            }
            for (packet, _) in std::mem::take(&mut self.open) {
                self.handle(Event::Acknowledged { packet, is_taken: true });
            }
        }
    }

    pub(super) fn disconnect(&mut self) {
        self.open.clear();
        self.handle(Event::Disconnected);
    }

    pub(super) fn ask(&mut self, message: Received) -> Option<Work> {
        self.handle(Event::Received(message));
        self.session.next_work(self.now)
    }

    /// Asks, and answers at once.
    pub(super) fn ask_and_answer(&mut self, message: Received) -> bool {
        let Some(work) = self.ask(message) else { return false };
        let now = self.now;
        let is_to_be_run = self.session.identify(work.ticket, None, None, now).is_some();
        if is_to_be_run {
            self.session.answer(work.ticket, ok("{}"), now);
        }
        is_to_be_run
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.session.tick(self.now);
    }

    /// Replies that went out, by topic and payload.
    pub(super) fn replies(&mut self) -> Vec<Outgoing> {
        self.published.drain(..).filter(|message| !message.is_retained).collect()
    }
}

pub(super) fn ok(body: &str) -> Written {
    Written { payload: body.as_bytes().to_vec(), json_bytes: None, status: 200, facts: Vec::new() }
}

pub(super) fn request(packet: u16, correlation: &str) -> Received {
    Received {
        topic: INFER.to_owned(),
        payload: br#"{"text": "hello"}"#.as_slice().into(),
        qos: if packet > 0 { Qos::AtLeastOnce } else { Qos::AtMostOnce },
        is_retained: false,
        is_repeated: false,
        packet,
        properties: Properties {
            response_topic: Some("replies/a".to_owned()),
            correlation: Some(correlation.as_bytes().to_vec().into()),
            ..Properties::default()
        },
    }
}

pub(super) fn with(message: Received, change: impl FnOnce(&mut Received)) -> Received {
    let mut message = message;
    change(&mut message);
    message
}

pub(super) fn code(message: &Outgoing) -> String {
    let document: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
    document["code"].as_str().unwrap_or("ok").to_owned()
}

#[test]
fn subscribes_and_announces_on_every_connection() {
    let mut bench = Bench::new(Settings::default());
    bench.session.announce("moed/test/info".to_owned(), "{}");
    for _ in 0..3 {
        bench.handle(Event::Connected(Link { is_v5: true, packet_bytes_max: 1 << 20 }));
        bench.settle();
        assert_eq!(bench.subscribed, 4);
        bench.subscribed = 0;
        let topics: Vec<(String, bool)> =
            bench.published.drain(..).map(|message| (message.topic, message.is_retained)).collect();
        let expected = ["moed/test/info", "moed/test/status"].map(|t| (t.to_owned(), true));
        assert_eq!(topics, expected);
        bench.disconnect();
    }
}

#[test]
fn acknowledges_a_request_when_the_broker_has_its_reply() {
    let mut bench = Bench::connected();
    assert!(bench.ask_and_answer(request(7, "a")));
    bench.act();
    assert_eq!(bench.replies().len(), 1);
    assert!(bench.acknowledged.is_empty());
    bench.settle();
    assert_eq!(bench.acknowledged, [7]);
}

#[test]
fn acknowledges_in_the_order_in_which_requests_came() {
    let mut bench = Bench::connected();
    let slow = bench.ask(request(1, "a")).unwrap();
    assert!(bench.ask_and_answer(request(2, "b")));
    bench.settle();
    assert!(bench.acknowledged.is_empty());
    bench.session.answer(slow.ticket, ok("{}"), bench.now);
    bench.settle();
    assert_eq!(bench.acknowledged, [1, 2]);
}

#[test]
fn a_slow_request_holds_up_the_others_acknowledgements_only_for_a_while() {
    let mut bench = Bench::connected();
    bench.ask(request(1, "a")).unwrap();
    assert!(bench.ask_and_answer(request(2, "b")));
    bench.pass(second(4));
    bench.settle();
    assert!(bench.acknowledged.is_empty());
    bench.pass(second(1));
    bench.settle();
    assert_eq!(bench.acknowledged, [1, 2]);
}

#[test]
fn sends_again_what_a_lost_connection_had_not_confirmed() {
    let mut bench = Bench::connected();
    assert!(bench.ask_and_answer(request(1, "a")));
    bench.act();
    let first = bench.replies();
    for _ in 0..3 {
        bench.disconnect();
        bench.handle(Event::Connected(Link { is_v5: true, packet_bytes_max: 1 << 20 }));
        bench.act();
        assert_eq!(bench.replies(), first);
    }
    bench.settle();
    bench.disconnect();
    bench.connect();
    assert_eq!(bench.replies(), []);
    assert_eq!(bench.counters.replies.get(), 1);
}

#[test]
fn a_reply_whose_time_has_passed_is_dropped_and_counted() {
    let mut bench = Bench::connected();
    let asked = with(request(1, "a"), |m| m.properties.expiry = Some(second(3)));
    assert!(bench.ask_and_answer(asked));
    bench.disconnect();
    bench.pass(second(2));
    assert_eq!(bench.counters.replies_expired.get(), 0);
    bench.pass(second(1));
    assert_eq!(bench.counters.replies_expired.get(), 1);
    bench.connect();
    assert_eq!(bench.replies(), []);
    assert_eq!(bench.session.unsent(), 0);
}

#[test]
fn a_reply_says_how_long_it_is_still_of_use() {
    let mut bench = Bench::connected();
    let asked = with(request(1, "a"), |m| m.properties.expiry = Some(second(10)));
    let work = bench.ask(asked).unwrap();
    bench.pass(second(3));
    bench.session.answer(work.ticket, ok("{}"), bench.now);
    bench.settle();
    assert_eq!(bench.replies()[0].properties.expiry, Some(second(7)));
}

#[test]
fn a_request_that_is_never_answered_gets_an_error_after_its_deadline() {
    let mut bench = Bench::connected();
    let asked = with(request(1, "a"), |m| m.properties.expiry = Some(second(2)));
    let work = bench.ask(asked).unwrap();
    bench.pass(second(2));
    assert_eq!(bench.session.waiting(), 1);
    bench.pass(second(1));
    bench.settle();
    assert_eq!(code(&bench.replies()[0]), "deadline_exceeded");
    assert_eq!(bench.acknowledged, [1]);
    bench.session.answer(work.ticket, ok("{}"), bench.now);
    bench.settle();
    assert_eq!(bench.replies(), [], "a late answer is not a second one");
}

#[test]
fn what_comes_twice_is_computed_once() {
    let mut bench = Bench::connected();
    let work = bench.ask(request(1, "a")).unwrap();
    assert!(bench.session.identify(work.ticket, None, None, bench.now).is_some());
    assert!(!bench.ask_and_answer(request(2, "a")), "while the first is computed");
    assert!(bench.ask_and_answer(request(3, "b")), "another correlation is another request");
    bench.session.answer(work.ticket, ok("first"), bench.now);
    bench.settle();
    assert_eq!(bench.replies().len(), 2);
    assert_eq!(bench.acknowledged, [1, 2, 3]);
    assert!(!bench.ask_and_answer(request(4, "a")), "after it was answered");
    bench.settle();
    assert_eq!(&*bench.replies()[0].payload, b"first");
    let [joined, answered] =
        [&bench.counters.duplicates_joined, &bench.counters.duplicates_answered];
    assert_eq!((joined.get(), answered.get()), (1, 1));
    bench.pass(second(31));
    assert!(bench.ask_and_answer(request(5, "a")), "after its lifetime");
}

#[test]
fn what_the_broker_sends_again_is_answered_once() {
    let mut bench = Bench::connected();
    let repeated = |packet| with(request(packet, "a"), |m| m.is_repeated = true);
    assert!(bench.ask_and_answer(request(1, "a")));
    // The reply is on its way when the connection is lost.
    bench.act();
    bench.published.clear();
    bench.disconnect();
    bench.handle(Event::Connected(Link { is_v5: true, packet_bytes_max: 1 << 20 }));
    assert!(!bench.ask_and_answer(repeated(1)));
    bench.settle();
    assert_eq!((bench.replies().len(), &*bench.acknowledged), (1, &[1][..]));

    // The broker has the reply, and not our word that the request is dealt with.
    assert!(bench.ask_and_answer(request(2, "b")));
    bench.settle();
    assert_eq!(bench.replies().len(), 1);
    bench.disconnect();
    bench.connect();
    assert!(!bench.ask_and_answer(with(request(2, "b"), |m| m.is_repeated = true)));
    bench.settle();
    assert_eq!((bench.replies().len(), &*bench.acknowledged), (0, &[1, 2, 2][..]));
    assert_eq!(bench.counters.settled(), bench.counters.requests.get());
}

#[test]
fn nothing_is_taken_for_a_duplicate_without_a_sign() {
    let mut bench = Bench::connected();
    let unnamed = |packet| with(request(packet, ""), |m| m.properties.correlation = None);
    assert!(bench.ask_and_answer(unnamed(1)));
    assert!(bench.ask_and_answer(unnamed(2)), "equal texts may be two questions");
    let repeated = with(unnamed(3), |m| m.is_repeated = true);
    assert!(!bench.ask_and_answer(repeated), "unless the broker says so");
    assert!(bench.ask_and_answer(request(0, "a")));
    assert!(bench.ask_and_answer(request(0, "a")), "QoS 0 comes at most once");
    let other = with(request(4, "x"), |m| m.payload = b"{}".as_slice().into());
    assert!(bench.ask_and_answer(request(5, "x")));
    assert!(bench.ask_and_answer(other), "another body is another request");
}

#[test]
fn an_error_that_may_pass_is_not_remembered() {
    let mut bench = Bench::connected();
    let work = bench.ask(request(1, "a")).unwrap();
    bench.session.identify(work.ticket, None, None, bench.now).unwrap();
    bench.session.answer(work.ticket, Written { status: 503, ..ok("{}") }, bench.now);
    assert!(bench.ask_and_answer(request(2, "a")));
}

#[test]
fn answers_overloaded_when_too_many_wait() {
    let mut bench = Bench::new(Settings { requests_max: 2, ..Settings::default() });
    bench.connect();
    assert!(bench.ask(request(0, "a")).is_some());
    assert!(bench.ask(request(0, "b")).is_some());
    assert!(bench.ask(request(0, "c")).is_none());
    bench.settle();
    let reply = &bench.replies()[0];
    assert_eq!(code(reply), "overloaded");
    let property = |name| reply.properties.user(name).map(str::to_owned);
    assert_eq!(property("status").as_deref(), Some("429"));
    assert_eq!(property("retry-after-ms").as_deref(), Some("100"));
}

#[test]
fn requests_at_qos_1_beyond_what_the_broker_was_told_wait() {
    let mut bench = Bench::new(Settings { requests_max: 2, ..Settings::default() });
    bench.connect();
    let first = bench.ask(request(1, "a")).unwrap();
    bench.ask(request(2, "b")).unwrap();
    for packet in 3..=34 {
        assert!(bench.ask(request(packet, &packet.to_string())).is_none());
    }
    bench.settle();
    assert_eq!(bench.replies(), []);
    assert!(bench.ask(request(35, "k")).is_none());
    bench.settle();
    assert_eq!(code(&bench.replies()[0]), "overloaded", "but not without end");
    bench.session.answer(first.ticket, ok("{}"), bench.now);
    assert!(bench.session.next_work(bench.now).is_some());
    assert!(bench.session.next_work(bench.now).is_none());
}

#[test]
fn what_a_full_queue_refused_is_tried_again_at_qos_1_until_its_time_has_passed() {
    let mut bench = Bench::new(Settings { deadline_default: ms(250), ..Settings::default() });
    bench.connect();
    let first = bench.ask(request(1, "a")).unwrap();
    let defer = |bench: &mut Bench| {
        assert!(bench.session.identify(first.ticket, None, None, bench.now).is_some());
        bench.session.defer(first.ticket, Some(ms(100)), bench.now)
    };
    assert!(defer(&mut bench));
    assert!(bench.session.next_work(bench.now).is_none());
    assert!(bench.ask(request(2, "a")).is_some_and(|again| {
        bench.session.identify(again.ticket, None, None, bench.now).is_none()
    }));
    assert!(bench.session.wake_at(bench.now).unwrap() <= bench.now + ms(100));
    bench.pass(ms(100));
    assert_eq!(bench.session.next_work(bench.now), Some(first.clone()));
    assert!(defer(&mut bench));
    bench.pass(ms(100));
    assert_eq!(bench.session.next_work(bench.now), Some(first.clone()));
    assert!(!defer(&mut bench), "it would be too late");
    let second = bench.ask(Received { qos: Qos::AtMostOnce, ..request(0, "b") }).unwrap();
    assert!(!bench.session.defer(second.ticket, Some(ms(1)), bench.now), "nobody waits at QoS 0");
    assert_eq!(bench.counters.deferrals.get(), 2);
}

#[test]
fn a_broker_that_sends_too_much_is_acknowledged_a_few_at_a_time() {
    let mut bench = Bench::new(Settings { requests_max: 2, ..Settings::default() });
    bench.connect();
    for packet in 1..=12 {
        bench.handle(Event::Received(request(packet, &packet.to_string())));
    }
    while let Some(work) = bench.session.next_work(bench.now) {
        assert!(bench.session.identify(work.ticket, None, None, bench.now).is_some());
        bench.session.answer(work.ticket, ok("{}"), bench.now);
    }
    let mut acknowledged = Vec::new();
    for _ in 0..4 {
        bench.settle();
        acknowledged.push(bench.acknowledged.len());
        bench.pass(ms(10));
    }
    // It sends nothing more: twice as many each time, and the last two as they come.
    assert_eq!(acknowledged, [1, 3, 7, 12]);
}
