//! The demo's second half: the daemon asked over the broker inside it, by a client of MQTT 5 and by
//! one of 3.1.1. Each is what a device would do, with the same library that the daemon uses.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use rumqttc::{NetworkOptions, v5};
use serde_json::{Value, json};

use crate::cli::Failure;

/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of packets that wait to be written.
const QUEUE: usize = 16;

const STATUS: &str = "moed/hub/status";
const REQUEST: &str = "moed/hub/models/intent/infer";
const REPLY: &str = "demo/answers";
const OLD_REQUEST: &str = "moed/hub/models/intent/infer/demo";
const OLD_REPLY: &str = "moed/hub/models/intent/result/demo";

const SENTENCES: [&str; 3] =
    ["turn on the kitchen light", "set the bedroom to 20 degrees", "what time is it"];

/// A port of this host that nobody listens on now.
pub fn address() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    address.map_err(|error| format!("MQTT: no port for a broker: {error}"))
}

/// Asks over the broker at `address`; what came of it, for who watches.
pub fn ask(address: SocketAddr) -> Result<String, Failure> {
    let mut text = format!(
        "\nOver MQTT, through the daemon's own broker on {address}\n  \
         MQTT 5: to {REQUEST}, answered on {REPLY}\n"
    );
    let mut client = V5::connect(address);
    // The daemon says so once it listens.
    client.subscribe(STATUS)?;
    client.wait_for(STATUS)?;
    client.subscribe(REPLY)?;
    text += &asked(|body| {
        client.publish(body)?;
        client.wait_for(REPLY)
    })?;
    text += &format!("  MQTT 3.1.1: to {OLD_REQUEST},\n  answered on {OLD_REPLY}\n");
    let mut client = V311::connect(address);
    client.subscribe()?;
    text += &asked(|body| {
        client.publish(body)?;
        client.wait()
    })?;
    Ok(text)
}

fn asked(mut ask: impl FnMut(Vec<u8>) -> Result<Vec<u8>, Failure>) -> Result<String, Failure> {
    let mut text = String::new();
    for sentence in SENTENCES {
        let start = Instant::now();
        let answer = ask(json!({ "text": sentence }).to_string().into_bytes())?;
        let us = start.elapsed().as_micros();
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| failed(&error))?;
        let said = answer.get("intent").or_else(|| answer.get("error"));
        let said = said.and_then(Value::as_str).unwrap_or("an answer without an intent");
        text += &format!("    {sentence:<40} {said:<25}{us:>7} us\n");
    }
    Ok(text)
}

fn failed(error: &impl ToString) -> Failure {
    format!("MQTT: {}; look at the daemon's log", error.to_string())
}

struct V5 {
    client: v5::Client,
    connection: v5::Connection,
}

impl V5 {
    fn connect(address: SocketAddr) -> Self {
        let host = address.ip().to_string();
        let mut options = v5::MqttOptions::new("moed-demo-5", host, address.port());
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, connection) = v5::Client::new(options, QUEUE);
        Self { client, connection }
    }

    /// The next packet from the broker.
    fn next(&mut self) -> Result<v5::mqttbytes::v5::Packet, Failure> {
        loop {
            let event = self.connection.recv_timeout(PATIENCE).map_err(|_| failed(&"no answer"))?;
            if let v5::Event::Incoming(packet) = event.map_err(|error| failed(&error))? {
                return Ok(packet);
            }
        }
    }

    fn subscribe(&mut self, topic: &str) -> Result<(), Failure> {
        self.client
            .subscribe(topic, v5::mqttbytes::QoS::AtLeastOnce)
            .map_err(|error| failed(&error))?;
        while !matches!(self.next()?, v5::mqttbytes::v5::Packet::SubAck(_)) {}
        Ok(())
    }

    fn publish(&mut self, body: Vec<u8>) -> Result<(), Failure> {
        let properties = PublishProperties {
            response_topic: Some(REPLY.to_owned()),
            correlation_data: Some("demo".into()),
            content_type: Some("application/json".to_owned()),
            ..PublishProperties::default()
        };
        let qos = v5::mqttbytes::QoS::AtLeastOnce;
        let published = self.client.publish_with_properties(REQUEST, qos, false, body, properties);
        published.map_err(|error| failed(&error))
    }

    fn wait_for(&mut self, topic: &str) -> Result<Vec<u8>, Failure> {
        loop {
            if let v5::mqttbytes::v5::Packet::Publish(message) = self.next()?
                && message.topic == topic
                && (topic != STATUS || &*message.payload == b"online")
            {
                return Ok(message.payload.into());
            }
        }
    }
}

struct V311 {
    client: rumqttc::Client,
    connection: rumqttc::Connection,
}

impl V311 {
    fn connect(address: SocketAddr) -> Self {
        let host = address.ip().to_string();
        let options = rumqttc::MqttOptions::new("moed-demo-311", host, address.port());
        let (client, mut connection) = rumqttc::Client::new(options, QUEUE);
        connection.eventloop.network_options.set_tcp_nodelay(true);
        Self { client, connection }
    }

    fn next(&mut self) -> Result<rumqttc::Packet, Failure> {
        loop {
            let event = self.connection.recv_timeout(PATIENCE).map_err(|_| failed(&"no answer"))?;
            if let rumqttc::Event::Incoming(packet) = event.map_err(|error| failed(&error))? {
                return Ok(packet);
            }
        }
    }

    fn subscribe(&mut self) -> Result<(), Failure> {
        self.client
            .subscribe(OLD_REPLY, rumqttc::QoS::AtLeastOnce)
            .map_err(|error| failed(&error))?;
        while !matches!(self.next()?, rumqttc::Packet::SubAck(_)) {}
        Ok(())
    }

    fn publish(&mut self, body: Vec<u8>) -> Result<(), Failure> {
        let qos = rumqttc::QoS::AtLeastOnce;
        self.client.publish(OLD_REQUEST, qos, false, body).map_err(|error| failed(&error))
    }

    fn wait(&mut self) -> Result<Vec<u8>, Failure> {
        loop {
            if let rumqttc::Packet::Publish(message) = self.next()? {
                return Ok(message.payload.into());
            }
        }
    }
}
