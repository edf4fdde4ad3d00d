//! Several requests in one run.

use std::time::Duration;

use moed::engine::{Dim, Port, Signature};
use moed::scheduler::{SchedulerOptions, batch};
use moed::tensor::{DType, Data, Tensor};

use super::{PATIENCE, Setup, delay, request, word};

#[test]
fn requests_that_wait_are_computed_together_up_to_the_limit() {
    let options = SchedulerOptions { batch_rows_max: 8, ..SchedulerOptions::default() };
    let setup = Setup::new(delay(100), options);
    let (first, first_reply) = request(1, PATIENCE);
    setup.send(first);
    std::thread::sleep(Duration::from_millis(30));
    let mut replies = Vec::new();
    for rows in [1, 3, 2, 2, 1] {
        let (request, reply) = request(rows, PATIENCE);
        setup.send(request);
        replies.push((rows, reply));
    }
    let (mut wrong, wrong_reply) = request(1, PATIENCE);
    wrong.inputs[0].name = "w".to_owned();
    setup.send(wrong);
    assert!(first_reply.recv_timeout(PATIENCE).expect("an answer").is_ok());
    for (rows, reply) in replies {
        let answer = reply.recv_timeout(PATIENCE).expect("an answer").expect("outputs");
        assert_eq!(answer.outputs[0].tensor.shape().dims(), [rows, 3]);
    }
    let outcome = wrong_reply.recv_timeout(PATIENCE).expect("an answer");
    assert_eq!(word(&outcome), "invalid_request", "one bad request fails alone");
    let sizes: Vec<_> = setup.metrics.model("x").statistics().batches;
    let sizes: Vec<_> = sizes.iter().map(|(size, tally)| (*size, tally.count)).collect();
    // The first alone; 1 + 3 + 2 + 2 rows; then the last one, beside the bad one.
    assert_eq!(sizes, [(1, 2), (4, 1)]);
}

#[test]
fn what_is_joined_comes_apart_as_it_was() {
    let tensor = |rows: usize, from: i64| {
        let values: Vec<i64> = (from..from + rows as i64 * 2).collect();
        Tensor::new(&[rows, 2], Data::I64(values)).expect("a tensor")
    };
    let requests = [vec![tensor(1, 0)], vec![tensor(3, 10)], vec![tensor(2, 20)]];
    let slices: Vec<&[Tensor]> = requests.iter().map(Vec::as_slice).collect();
    let joined = batch::join(&slices).expect("they fit");
    assert_eq!(joined[0].shape().dims(), [6, 2]);
    let rows: Vec<_> = slices.iter().map(|inputs| batch::rows(inputs)).collect();
    assert_eq!(batch::split(&joined, &rows).expect("as many rows"), requests);
    assert_eq!(batch::split(&joined, &[1, 3]), None);
    let other = vec![Tensor::new(&[1, 3], Data::I64(vec![0; 3])).expect("a tensor")];
    assert!(batch::fit(&requests[0], &requests[1]));
    assert!(!batch::fit(&requests[0], &other));
}

#[test]
fn only_rows_that_do_not_see_each_other_are_joined() {
    let port = |dims: &[Dim]| Port { name: "p".to_owned(), dtype: DType::F32, dims: dims.to_vec() };
    let named = |name: &str| Dim::Named(name.to_owned());
    for (inputs, outputs, expected) in [
        (vec![vec![named("batch"), Dim::Fixed(2)]], vec![named("batch")], true),
        (vec![vec![named("N")]], vec![named("N"), named("M")], true),
        (vec![vec![named("words"), Dim::Fixed(2)]], vec![named("words")], false),
        (vec![vec![named("batch")], vec![Dim::Fixed(1)]], vec![named("batch")], false),
        (vec![vec![named("batch")]], vec![Dim::Fixed(1)], false),
        (vec![vec![named("batch"), named("batch")]], vec![named("batch")], false),
        (vec![], vec![named("batch")], false),
    ] {
        let signature = Signature {
            inputs: inputs.iter().map(|dims| port(dims)).collect(),
            outputs: vec![port(&outputs)],
        };
        assert_eq!(batch::is_batchable(&signature), expected, "{signature:?}");
    }
}
