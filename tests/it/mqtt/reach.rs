//! What `moed check` says of a broker; and brokers over Unix sockets.

use moed::transport::mqtt::{Broker as Address, Settings, reach};

use super::has_mosquitto;
use crate::support::mqtt::broker::{Broker, free_port};
use crate::support::mqtt::daemon::{Daemon, settings};
use crate::support::service::FakeService;

fn reached(settings: &Settings) -> Result<&'static str, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(reach(settings)).map(|reached| {
        assert!(reached.is_in_local_network);
        reached.version
    })
}

#[test]
fn a_broker_is_reached_beside_a_running_daemon_and_nothing_is_left_there() {
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::start();
    let daemon = Daemon::start(broker.address);
    assert_eq!(reached(&settings(broker.address)), Ok("5"));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(daemon.counters.is_connected(), "it has kept its session");
    assert_eq!(daemon.counters.connects.get(), 1);
    let log = broker.log();
    let check: Vec<_> = log.lines().filter(|line| line.contains("moed-check-")).collect();
    assert!(check.iter().any(|line| line.contains("DISCONNECT")), "no Will is sent: {check:?}");
    assert!(check.iter().all(|line| !line.contains("PUBLISH")), "{check:?}");
}

#[test]
fn a_broker_that_is_not_there_or_refuses_is_named() {
    let nobody = ([127, 0, 0, 1], free_port()).into();
    let error = reached(&settings(nobody)).unwrap_err();
    assert!(error.contains("refused"), "{error}");
    if !has_mosquitto() {
        return;
    }
    let broker = Broker::with("allow_anonymous false\n");
    let error = reached(&settings(broker.address)).unwrap_err();
    assert!(error.contains("username"), "{error}");
}

#[test]
fn a_broker_over_a_unix_socket_is_as_good() {
    if !has_mosquitto() {
        return;
    }
    let lines = "per_listener_settings true\nallow_anonymous true\n\
                 listener 0 DIRECTORY/mosquitto.sock\nallow_anonymous true\n";
    let broker = Broker::with(lines);
    let path = broker.directory.path().join("mosquitto.sock");
    let address: Address = format!("unix://{}", path.display()).parse().unwrap();
    let settings = Settings { broker: address, ..settings(broker.address) };
    assert_eq!(reached(&settings), Ok("5"));
    let daemon = Daemon::with(settings, FakeService::default());
    assert!(daemon.counters.is_connected());
}
