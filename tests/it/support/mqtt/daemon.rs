//! The MQTT transport in this process, with a service that pretends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use moed::transport::mqtt::{Broker, Counters, Health, Settings, serve};
use tokio::sync::watch;

use super::super::http::until;
use super::super::service::FakeService;

/// A transport; it stops when this is dropped.
pub struct Daemon {
    pub service: Arc<FakeService>,
    pub counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// The broker there.
pub fn at(address: SocketAddr, is_tls: bool) -> Broker {
    Broker::Network { host: address.ip().to_string(), port: address.port(), is_tls }
}

/// Settings for a broker at `address`, with short times.
pub fn settings(address: SocketAddr) -> Settings {
    Settings {
        broker: at(address, false),
        node: "test".to_owned(),
        keep_alive: Duration::from_secs(5),
        models_interval: Duration::from_millis(50),
        stop_time_max: Duration::from_secs(3),
        ..Settings::default()
    }
}

impl Daemon {
    /// One that is connected.
    pub fn start(address: SocketAddr) -> Self {
        Self::with(settings(address), FakeService::default())
    }

    pub fn with(settings: Settings, service: FakeService) -> Self {
        let daemon = Self::unconnected(settings, service);
        daemon.wait_until_connected();
        daemon
    }

    pub fn unconnected(settings: Settings, service: FakeService) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (service, counters) = (Arc::new(service), Arc::new(Counters::default()));
        let probe = Arc::new(|| Health {
            temperature_celsius: Some(51.5),
            watts: Some(3.25),
            p99_ms: Some(4.0),
            ..Health::default()
        });
        let serving = serve(
            Arc::new(settings),
            Arc::clone(&service) as _,
            probe,
            Arc::clone(&counters),
            stopped,
        );
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(serving).expect("its settings can be");
        });
        Self { service, counters, stop, thread: Some(thread) }
    }

    pub fn wait_until_connected(&self) {
        until("the daemon is connected", || self.counters.is_connected());
    }

    /// Tells it to stop, and does not wait.
    pub fn begin_stop(&self) {
        self.stop.send(true).expect("it listens for that");
    }

    /// Waits until it has stopped.
    pub fn stop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the daemon did not panic");
        }
    }

    /// How many requests were computed.
    pub fn runs(&self) -> usize {
        self.service.seen.lock().unwrap().len()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(result.is_ok() || std::thread::panicking(), "the daemon did not panic");
        }
    }
}
