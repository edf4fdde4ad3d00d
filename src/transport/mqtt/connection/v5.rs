//! MQTT 5, as rumqttc speaks it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, DisconnectReasonCode, Filter, LastWill, Packet, PubAckReason,
    Publish, PublishProperties, RetainForwardRule, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, EventLoop, MqttOptions, StateError};
use rumqttc::{NetworkOptions, Outgoing as Written};
use tokio_rustls::rustls::client::ClientConfig;

use super::{
    Down, INFLIGHT_MAX, Polled, QUEUE, What, address, busy, client_id, refusal, transport,
};
use crate::transport::mqtt::message::{Outgoing, Properties, Qos, Received};
use crate::transport::mqtt::secrets::Password;
use crate::transport::mqtt::session::{Action, Event, Link, OFFLINE};
use crate::transport::mqtt::settings::Settings;
use crate::transport::mqtt::topics::{self, Topics};

/// The largest that MQTT can say.
const PACKET_BYTES_MAX: usize = 268_435_460;

pub struct Sender(AsyncClient);

pub struct Poller {
    events: EventLoop,
    /// Why the connection has ended, while what came before is still being told. A broker may
    /// close it right behind an acknowledgement; what is told after the next connection would be
    /// taken for that one's.
    ended: Option<Down>,
}

pub(super) fn open(
    settings: &Settings,
    topics: &Topics,
    password: Option<&Password>,
    tls: Option<Arc<ClientConfig>>,
) -> (Sender, Poller) {
    let (host, port) = address(&settings.broker);
    let mut options = MqttOptions::new(client_id(settings), host, port);
    options.set_transport(transport(&settings.broker, tls));
    if let Some(username) = &settings.username {
        options.set_credentials(username, password.map_or("", Password::reveal));
    }
    // Else Nagle's algorithm and delayed acknowledgements add 40 ms to an answer at QoS 1.
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    let expiry = u32::try_from(settings.session_expiry.as_secs()).unwrap_or(u32::MAX);
    let will = LastWill::new(topics.status(), OFFLINE, QoS::AtLeastOnce, true, None);
    options
        .set_network_options(network)
        .set_keep_alive(settings.keep_alive)
        .set_connection_timeout(settings.connect_time_max.as_secs())
        .set_clean_start(false)
        .set_session_expiry_interval(Some(expiry))
        .set_max_packet_size(Some(settings.packet_bytes_max))
        .set_receive_maximum(Some(settings.requests_max))
        .set_outgoing_inflight_upper_limit(INFLIGHT_MAX)
        .set_manual_acks(true)
        .set_last_will(will);
    let (client, events) = AsyncClient::new(options, QUEUE);
    (Sender(client), Poller { events, ended: None })
}

impl Sender {
    pub(super) fn send(&self, action: Action) -> Result<(), String> {
        let sent = match action {
            Action::Subscribe(filters) => self.0.try_subscribe_many(filters.iter().map(filter)),
            Action::Publish(message) => {
                let Outgoing { topic, payload, qos, is_retained, properties } = message;
                let qos = match qos {
                    Qos::AtMostOnce => QoS::AtMostOnce,
                    Qos::AtLeastOnce => QoS::AtLeastOnce,
                };
                let properties = outgoing(properties);
                self.0.try_publish_with_properties(topic, qos, is_retained, payload, properties)
            }
            Action::Acknowledge(packet) => {
                let mut received = Publish::new("", QoS::AtLeastOnce, Bytes::new(), None);
                received.pkid = packet;
                self.0.try_ack(&received)
            }
            Action::Disconnect => self.0.try_disconnect(),
        };
        sent.map_err(|error| error.to_string())
    }
}

fn filter(filter: &topics::Filter) -> Filter {
    Filter {
        path: filter.path.clone(),
        qos: QoS::AtLeastOnce,
        // With a shared one it is a protocol error.
        nolocal: !filter.is_shared,
        preserve_retain: true,
        retain_forward_rule: RetainForwardRule::Never,
    }
}

fn outgoing(properties: Properties) -> PublishProperties {
    let Properties { response_topic, correlation, content_type, expiry, user } = properties;
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    PublishProperties {
        payload_format_indicator: None,
        message_expiry_interval: expiry.map(seconds),
        topic_alias: None,
        response_topic,
        correlation_data: correlation,
        user_properties: user,
        subscription_identifiers: Vec::new(),
        content_type,
    }
}

impl Poller {
    pub(super) fn keep_alive(&self) -> Duration {
        self.events.options.keep_alive()
    }

    pub(super) async fn poll(&mut self) -> Result<Polled, Down> {
        let ended = match self.ended.take() {
            Some(ended) => ended,
            None => match self.events.poll().await {
                Ok(event) => return Ok(polled(event)),
                Err(error) => down(&error),
            },
        };
        match self.events.state.events.pop_front() {
            Some(event) => {
                self.ended = Some(ended);
                Ok(polled(event))
            }
            None => Err(ended),
        }
    }
}

fn polled(event: rumqttc::v5::Event) -> Polled {
    match event {
        rumqttc::v5::Event::Incoming(packet) => Polled::incoming(incoming(packet)),
        rumqttc::v5::Event::Outgoing(packet) => Polled::outgoing(written(&packet)),
    }
}

fn incoming(packet: Packet) -> What {
    match packet {
        Packet::ConnAck(consent) => What::Consent(link(&consent)),
        Packet::Publish(publish) => What::Event(Event::Received(received(publish))),
        Packet::PubAck(ack) => {
            let is_taken =
                [PubAckReason::Success, PubAckReason::NoMatchingSubscribers].contains(&ack.reason);
            What::Event(Event::Acknowledged { packet: ack.pkid, is_taken })
        }
        Packet::SubAck(ack) => {
            let is_granted = |code| matches!(code, &SubscribeReasonCode::Success(_));
            What::Event(Event::Subscribed(ack.return_codes.iter().map(is_granted).collect()))
        }
        _ => What::Nothing,
    }
}

fn link(consent: &ConnAck) -> Link {
    let properties = consent.properties.as_ref();
    let max = properties.and_then(|properties| properties.max_packet_size);
    let max = max.and_then(|max| usize::try_from(max).ok());
    Link { is_v5: true, packet_bytes_max: max.unwrap_or(PACKET_BYTES_MAX) }
}

fn received(publish: Publish) -> Received {
    let Publish { dup, qos, retain, topic, pkid, payload, properties } = publish;
    let properties = properties.unwrap_or_default();
    Received {
        topic: String::from_utf8_lossy(&topic).into_owned(),
        payload,
        qos: if qos == QoS::AtMostOnce { Qos::AtMostOnce } else { Qos::AtLeastOnce },
        is_retained: retain,
        is_repeated: dup,
        packet: pkid,
        properties: Properties {
            response_topic: properties.response_topic,
            correlation: properties.correlation_data,
            content_type: properties.content_type,
            expiry: properties
                .message_expiry_interval
                .map(|seconds| Duration::from_secs(seconds.into())),
            user: properties.user_properties,
        },
    }
}

pub(super) fn written(packet: &Written) -> What {
    match packet {
        Written::Publish(packet) => What::Event(Event::Written { message: Some(*packet) }),
        Written::Subscribe(_) | Written::PubAck(_) | Written::Disconnect => {
            What::Event(Event::Written { message: None })
        }
        // Pings; and a message that has to wait for another's acknowledgement.
        _ => What::Nothing,
    }
}

fn down(error: &ConnectionError) -> Down {
    match error {
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::RefusedProtocolVersion
            | ConnectReturnCode::UnsupportedProtocolVersion,
        ) => Down::new("it refuses MQTT 5", false, true),
        ConnectionError::ConnectionRefused(
            reason @ (ConnectReturnCode::ServiceUnavailable
            | ConnectReturnCode::ServerUnavailable
            | ConnectReturnCode::ServerBusy
            | ConnectReturnCode::ConnectionRateExceeded),
        ) => busy(reason),
        ConnectionError::ConnectionRefused(reason) => refusal(reason),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => {
            match reason_code {
                DisconnectReasonCode::SessionTakenOver => Down::refused(
                    "another client has taken this one's name: give each daemon its own `node`",
                ),
                reason => {
                    Down::new(format!("it has closed the connection: {reason:?}"), false, true)
                }
            }
        }
        ConnectionError::MqttState(error) => Down::new(error.to_string(), false, true),
        ConnectionError::NotConnAck(_) => Down::new("it speaks no MQTT", false, true),
        ConnectionError::Timeout(_) => Down::new("it does not answer", false, false),
        error => Down::new(error.to_string(), false, false),
    }
}
