//! MQTT 3.1.1, as rumqttc speaks it: for brokers that know no other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, EventLoop, LastWill, MqttOptions, Packet,
    Publish, QoS, SubscribeFilter, SubscribeReasonCode,
};
use tokio_rustls::rustls::client::ClientConfig;

use super::v5::written;
use super::{
    Down, INFLIGHT_MAX, Polled, QUEUE, What, address, busy, client_id, refusal, transport,
};
use crate::transport::mqtt::message::{Outgoing, Properties, Qos, Received};
use crate::transport::mqtt::secrets::Password;
use crate::transport::mqtt::session::{Action, Event, Link, OFFLINE};
use crate::transport::mqtt::settings::Settings;
use crate::transport::mqtt::topics::Topics;

/// The largest that MQTT can say.
const PACKET_BYTES_MAX: usize = 268_435_460;

/// These brokers can't be told how much is wanted, and a packet that is too large ends the
/// connection; so a large one is taken and refused.
const INCOMING_BYTES_MAX: usize = 16 << 20;

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
    options
        .set_keep_alive(settings.keep_alive)
        // A message that the daemon can't take would else come back for ever.
        .set_clean_session(true)
        .set_max_packet_size(INCOMING_BYTES_MAX, PACKET_BYTES_MAX)
        .set_inflight(INFLIGHT_MAX)
        .set_manual_acks(true)
        .set_last_will(LastWill::new(topics.status(), OFFLINE, QoS::AtLeastOnce, true));
    let (client, mut events) = AsyncClient::new(options, QUEUE);
    // Else Nagle's algorithm and delayed acknowledgements add 40 ms to an answer at QoS 1.
    events.network_options.set_tcp_nodelay(true);
    events.network_options.set_connection_timeout(settings.connect_time_max.as_secs());
    (Sender(client), Poller { events, ended: None })
}

impl Sender {
    pub(super) fn send(&self, action: Action) -> Result<(), String> {
        let sent = match action {
            Action::Subscribe(filters) => {
                let filter = |path| SubscribeFilter { path, qos: QoS::AtLeastOnce };
                let filters = filters.into_iter().map(|known| filter(known.path));
                self.0.try_subscribe_many(filters)
            }
            Action::Publish(message) => {
                let Outgoing { topic, payload, qos, is_retained, properties: _ } = message;
                let qos = match qos {
                    Qos::AtMostOnce => QoS::AtMostOnce,
                    Qos::AtLeastOnce => QoS::AtLeastOnce,
                };
                self.0.try_publish(topic, qos, is_retained, payload)
            }
            Action::Acknowledge(packet) => {
                let mut received = Publish::new("", QoS::AtLeastOnce, Bytes::new());
                received.pkid = packet;
                self.0.try_ack(&received)
            }
            Action::Disconnect => self.0.try_disconnect(),
        };
        sent.map_err(|error| error.to_string())
    }
}

impl Poller {
    pub(super) fn keep_alive(&self) -> Duration {
        self.events.mqtt_options.keep_alive()
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

fn polled(event: rumqttc::Event) -> Polled {
    match event {
        rumqttc::Event::Incoming(packet) => Polled::incoming(incoming(packet)),
        rumqttc::Event::Outgoing(packet) => Polled::outgoing(written(&packet)),
    }
}

fn incoming(packet: Packet) -> What {
    match packet {
        Packet::ConnAck(_) => {
            What::Consent(Link { is_v5: false, packet_bytes_max: PACKET_BYTES_MAX })
        }
        Packet::Publish(publish) => What::Event(Event::Received(received(publish))),
        Packet::PubAck(ack) => {
            What::Event(Event::Acknowledged { packet: ack.pkid, is_taken: true })
        }
        Packet::SubAck(ack) => {
            let is_granted = |code| matches!(code, &SubscribeReasonCode::Success(_));
            What::Event(Event::Subscribed(ack.return_codes.iter().map(is_granted).collect()))
        }
        _ => What::Nothing,
    }
}

fn received(publish: Publish) -> Received {
    let Publish { dup, qos, retain, topic, pkid, payload } = publish;
    Received {
        topic,
        payload,
        qos: if qos == QoS::AtMostOnce { Qos::AtMostOnce } else { Qos::AtLeastOnce },
        is_retained: retain,
        is_repeated: dup,
        packet: pkid,
        properties: Properties::default(),
    }
}

fn down(error: &ConnectionError) -> Down {
    match error {
        ConnectionError::ConnectionRefused(ConnectReturnCode::RefusedProtocolVersion) => {
            Down::new("it refuses MQTT 3.1.1", false, true)
        }
        ConnectionError::ConnectionRefused(reason @ ConnectReturnCode::ServiceUnavailable) => {
            busy(reason)
        }
        ConnectionError::ConnectionRefused(reason) => refusal(reason),
        ConnectionError::MqttState(error) => Down::new(error.to_string(), false, true),
        ConnectionError::NotConnAck(_) => Down::new("it speaks no MQTT", false, true),
        ConnectionError::NetworkTimeout => Down::new("it does not answer", false, false),
        error => Down::new(error.to_string(), false, false),
    }
}
