//! How many failures are too many for a version that was installed.

use moed::repository::install::trial::{Outcomes, Trial, TrialOptions, Verdict};

fn outcomes(answered: u64, failed: u64) -> Outcomes {
    Outcomes { answered, failed }
}

#[test]
fn it_fails_by_its_failures_and_passes_by_its_requests() {
    let options = TrialOptions { requests: 20, failures: 3 };
    let before = outcomes(1000, 70);
    let trial = Trial::begin(options, before).expect("there is one");
    let failed = |failed, requests| Verdict::Failed { failed, requests };
    for (answered, failures, verdict) in [
        (0, 0, Verdict::Pending),
        (19, 0, Verdict::Pending),
        (17, 2, Verdict::Pending),
        (20, 0, Verdict::Passed),
        (18, 2, Verdict::Passed),
        (0, 3, failed(3, 3)),
        (17, 3, failed(3, 20)),
        // Seen late: as large a part of them, or less.
        (170, 30, failed(30, 200)),
        (171, 29, Verdict::Passed),
        (1_000_000, 3, Verdict::Passed),
        (0, u64::MAX - 70, failed(u64::MAX - 70, u64::MAX - 70)),
    ] {
        let now = outcomes(before.answered + answered, before.failed + failures);
        assert_eq!(trial.judge(now), verdict, "{answered} answered, {failures} failed");
    }
    assert_eq!(Trial::begin(TrialOptions { requests: 0, failures: 3 }, before), None);
}
