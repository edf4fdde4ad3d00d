//! The queue and the quarantine, without threads: rules by name, and all of them at once in a
//! seeded simulation.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use moed::infer::{ClientId, Priority};
use moed::scheduler::quarantine::{Quarantine, QuarantineOptions};
use moed::scheduler::queue::{Pushed, Queue};

const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

fn client(name: &str) -> ClientId {
    ClientId(name.into())
}

/// A queue of texts, and a clock that stands still.
struct Setup {
    queue: Queue<&'static str>,
    now: Instant,
}

impl Setup {
    fn new(requests_max: usize) -> Self {
        Self { queue: Queue::new(requests_max), now: Instant::now() }
    }

    fn push(&mut self, item: &'static str, of: &str, priority: Priority) -> Pushed<&'static str> {
        let deadline = self.now + Duration::from_secs(1);
        self.queue.push(self.now, item, &client(of), priority, deadline)
    }

    fn pop_all(&mut self) -> Vec<&'static str> {
        std::iter::from_fn(|| self.queue.pop()).collect()
    }
}

#[test]
fn clients_take_turns_and_priorities_go_first() {
    let mut setup = Setup::new(16);
    for (item, of, priority) in [
        ("a1", "a", Priority::Normal),
        ("a2", "a", Priority::Normal),
        ("a3", "a", Priority::Normal),
        ("low", "b", Priority::Low),
        ("b1", "b", Priority::Normal),
        ("b2", "b", Priority::Normal),
        ("high", "a", Priority::High),
        ("c1", "c", Priority::Normal),
    ] {
        assert_eq!(setup.push(item, of, priority), Pushed::Admitted);
    }
    assert_eq!(setup.pop_all(), ["high", "a1", "b1", "c1", "a2", "b2", "a3", "low"]);
}

#[test]
fn a_full_queue_refuses_the_client_that_filled_it_and_makes_room_for_others() {
    let mut setup = Setup::new(3);
    for item in ["a1", "a2", "a3"] {
        assert_eq!(setup.push(item, "a", Priority::Normal), Pushed::Admitted);
    }
    assert_eq!(setup.push("a4", "a", Priority::Normal), Pushed::Refused("a4"));
    assert_eq!(setup.push("b1", "b", Priority::Normal), Pushed::Replaced("a3"));
    // Two of a and one of b: a second one of b would only trade places.
    assert_eq!(setup.push("b2", "b", Priority::Normal), Pushed::Refused("b2"));
    assert_eq!(setup.push("b3", "b", Priority::Low), Pushed::Refused("b3"));
    assert_eq!(setup.push("b4", "b", Priority::High), Pushed::Replaced("a2"));
    assert_eq!(setup.queue.len(), 3);
    assert_eq!(setup.pop_all(), ["b4", "a1", "b1"]);
}

#[test]
fn the_late_are_given_out_when_their_deadline_comes_and_not_before() {
    let mut queue = Queue::new(8);
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    for (item, deadline) in [("x", 30), ("y", 10), ("z", 20)] {
        assert_eq!(
            queue.push(start, item, &client(item), Priority::Normal, at(deadline)),
            Pushed::Admitted
        );
    }
    assert_eq!(
        queue.push(at(10), "w", &client("w"), Priority::High, at(10)),
        Pushed::Late("w"),
        "a deadline that has passed"
    );
    let mut late = Vec::new();
    queue.expire(at(9), &mut late);
    assert!(late.is_empty());
    assert_eq!(queue.next_deadline(), Some(at(10)));
    queue.expire(at(20), &mut late);
    assert_eq!(late, ["y", "z"]);
    assert_eq!(queue.next_deadline(), Some(at(30)));
    assert_eq!(queue.pop(), Some("x"));
    assert_eq!(queue.next_deadline(), None);
}

#[test]
fn the_time_to_wait_follows_what_requests_have_taken() {
    let mut setup = Setup::new(8);
    for item in ["a", "b", "c", "d"] {
        setup.push(item, item, Priority::Normal);
    }
    for _ in 0..100 {
        setup.queue.note_service(Duration::from_millis(50));
    }
    let ms = |workers| setup.queue.wait_estimate(workers).as_millis();
    assert_eq!((ms(1), ms(2), ms(3)), (200, 100, 100));
}

/// A small generator of numbers that look random (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
}

/// What the simulation knows of a request that waits.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    client: u64,
    priority: Priority,
    deadline: Instant,
}

fn simulate(seed: u64) {
    let mut numbers = Numbers(seed * 2 + 1);
    let requests_max = 1 + numbers.below(12) as usize;
    let clients: Vec<ClientId> = (0..4).map(|i| client(&format!("client {i}"))).collect();
    let mut queue: Queue<u64> = Queue::new(requests_max);
    let mut waiting: BTreeMap<u64, Known> = BTreeMap::new();
    let mut now = Instant::now();
    let (mut pushed, mut ended) = (0, 0);
    for _ in 0..400 {
        now += Duration::from_millis(numbers.below(4));
        let mut late = Vec::new();
        queue.expire(now, &mut late);
        for id in late {
            let known = waiting.remove(&id).expect("it was waiting");
            assert!(known.deadline <= now, "seed {seed}: {id} was not late");
            ended += 1;
        }
        assert!(waiting.values().all(|known| known.deadline > now), "seed {seed}: one is overdue");
        if numbers.below(5) < 3 {
            let known = Known {
                client: numbers.below(numbers.0 % 4 + 1),
                priority: PRIORITIES[numbers.below(3) as usize],
                deadline: now + Duration::from_millis(numbers.below(40)),
            };
            let of = &clients[known.client as usize];
            let id = pushed;
            pushed += 1;
            match queue.push(now, id, of, known.priority, known.deadline) {
                Pushed::Admitted => drop(waiting.insert(id, known)),
                Pushed::Replaced(other) => {
                    let out = waiting.remove(&other).expect("it was waiting");
                    assert!(out.priority <= known.priority, "seed {seed}");
                    assert!(waiting.values().all(|other| other.priority >= out.priority));
                    waiting.insert(id, known);
                    ended += 1;
                }
                Pushed::Refused(same) => {
                    assert_eq!((same, queue.len()), (id, requests_max), "seed {seed}");
                    ended += 1;
                }
                Pushed::Late(same) => {
                    assert!(same == id && known.deadline <= now, "seed {seed}");
                    ended += 1;
                }
            }
        } else if let Some(next) = queue.pop() {
            let known = waiting.remove(&next).expect("it was waiting");
            let is_before = |other: &Known| other.priority > known.priority;
            assert!(!waiting.values().any(is_before), "seed {seed}: a higher priority waits");
            let older = waiting
                .range(..next)
                .any(|(_, other)| other.client == known.client && other.priority == known.priority);
            assert!(!older, "seed {seed}: an older one of the same client waits");
            ended += 1;
        }
        assert_eq!(queue.len(), waiting.len(), "seed {seed}");
        assert!(queue.len() <= requests_max, "seed {seed}");
        let earliest = waiting.values().map(|known| known.deadline).min();
        assert!(queue.next_deadline() <= earliest, "seed {seed}: a deadline would be missed");
        assert_eq!(queue.next_deadline().is_some(), earliest.is_some(), "seed {seed}");
    }
    let mut rest = Vec::new();
    queue.drain(&mut rest);
    assert_eq!(ended + rest.len() as u64, pushed, "seed {seed}: each ends once");
    assert!(queue.is_empty());
}

#[test]
fn every_request_ends_once_and_every_rule_holds_over_many_seeds() {
    for seed in 0..500 {
        simulate(seed);
    }
}

#[test]
fn a_model_is_left_alone_after_panics_and_for_longer_each_time() {
    let options = QuarantineOptions {
        panics_max: 3,
        window: Duration::from_secs(10),
        pause_min: Duration::from_secs(4),
        pause_max: Duration::from_secs(6),
    };
    let start = Instant::now();
    let at = |s| start + Duration::from_secs(s);
    let mut quarantine = Quarantine::new(options);
    assert!(!quarantine.note_panic(at(0), "old"));
    assert!(!quarantine.note_panic(at(11), "first of the window"));
    assert!(!quarantine.note_panic(at(12), "second"));
    assert_eq!(quarantine.remaining(at(12)), None);
    assert!(quarantine.note_panic(at(13), "third"));
    assert_eq!(quarantine.remaining(at(14)), Some(Duration::from_secs(3)));
    assert!(quarantine.reason().expect("a reason").contains("third"));
    // After the pause, one panic is enough; the pause doubles, up to its limit.
    assert_eq!(quarantine.remaining(at(17)), None);
    assert!(quarantine.reason().is_some(), "the reason stays until a run goes well");
    assert!(quarantine.note_panic(at(17), "fourth"));
    assert_eq!(quarantine.remaining(at(17)), Some(Duration::from_secs(6)));
    quarantine.note_success();
    assert_eq!((quarantine.remaining(at(18)), quarantine.reason()), (None, None));
    assert!(!quarantine.note_panic(at(18), "a new start"));
}
