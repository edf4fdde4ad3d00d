//! What happened to connections, among the other metrics.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::transport::unix::Counters;

/// Writes the transport's counts when they are asked for.
#[derive(Debug)]
pub struct Connections(pub Arc<Counters>);

impl Collector for Connections {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = &self.0;
        let help = "What became of connections";
        let mut family =
            encoder.encode_descriptor("connections", help, None, MetricType::Counter)?;
        for (event, count) in [
            ("accepted", &counts.connections_accepted),
            ("refused", &counts.connections_refused),
            ("evicted", &counts.connections_evicted),
            ("accept_error", &counts.accept_errors),
            ("header_timeout", &counts.header_timeouts),
            ("body_timeout", &counts.body_timeouts),
            ("write_timeout", &counts.write_timeouts),
            ("idle_timeout", &counts.idle_timeouts),
            ("client_gone", &counts.clients_gone),
        ] {
            let labels = [("event", event)];
            ConstCounter::new(count.get()).encode(family.encode_family(&labels)?)?;
        }
        let help = "Answers over HTTP, by status";
        let mut family =
            encoder.encode_descriptor("http_answers", help, None, MetricType::Counter)?;
        for (status, count) in counts.answers() {
            let status = status.to_string();
            let labels = [("status", status.as_str())];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
