//! What happened to connections and over the broker, among the other metrics.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::transport::mqtt;
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

/// Writes what the MQTT transport has counted when it is asked for.
#[derive(Debug)]
pub struct BrokerCounts(pub Arc<mqtt::Counters>);

impl Collector for BrokerCounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = &self.0;
        for (name, help, count) in [
            ("mqtt_requests", "Requests that came over the broker", &counts.requests),
            (
                "mqtt_duplicates_answered",
                "Requests that came again and got the reply of before",
                &counts.duplicates_answered,
            ),
            (
                "mqtt_overloads",
                "Requests answered with overloaded because too many waited",
                &counts.overloads,
            ),
            (
                "mqtt_deferrals",
                "Tries at QoS 1 that a full queue refused, and that were put off",
                &counts.deferrals,
            ),
            (
                "mqtt_replies_too_large",
                "Replies larger than the broker takes",
                &counts.replies_too_large,
            ),
            ("mqtt_connects", "Connections that the broker consented to", &counts.connects),
            (
                "mqtt_connection_errors",
                "Connections to the broker that ended, and attempts that failed",
                &counts.connection_errors,
            ),
            (
                "mqtt_subscriptions_refused",
                "Subscriptions that the broker refused",
                &counts.subscriptions_refused,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count.get()).encode(metric)?;
        }
        let help = "What became of requests over the broker";
        let mut family =
            encoder.encode_descriptor("mqtt_outcomes", help, None, MetricType::Counter)?;
        for (outcome, count) in [
            ("replied", &counts.replies),
            ("reply_expired", &counts.replies_expired),
            ("reply_refused", &counts.replies_refused),
            ("reply_dropped", &counts.replies_dropped),
            ("loop_cut", &counts.loops_cut),
            ("retained_ignored", &counts.retained_ignored),
            ("duplicate_joined", &counts.duplicates_joined),
        ] {
            let labels = [("outcome", outcome)];
            ConstCounter::new(count.get()).encode(family.encode_family(&labels)?)?;
        }
        let help = "Whether the broker is connected";
        let metric = encoder.encode_descriptor("mqtt_connected", help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::from(counts.is_connected())).encode(metric)
    }
}
