//! The message by which Home Assistant finds the daemon: one device, with everything that can be
//! seen of it and done with it.
//!
//! <https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload>

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::settings::Settings;
use super::state::Health;
use super::topics::Topics;
use crate::infer::ModelInfo;

/// Home Assistant's name among the clients of the daemon.
const CLIENT: &str = "home-assistant";

/// What is shown of the health document: key, name, device class, unit.
const SENSORS: [(&str, &str, Option<&str>, Option<&str>); 5] = [
    ("temperature_celsius", "Temperature", Some("temperature"), Some("°C")),
    ("watts", "Power", Some("power"), Some("W")),
    ("k", "Experts per token", None, None),
    ("queue", "Requests waiting", None, None),
    ("p99_ms", "Answer time p99", Some("duration"), Some("ms")),
];

/// The longest sentence that Home Assistant's text entities take.
const SENTENCE_CHARS_MAX: u32 = 255;

pub(super) fn document(
    settings: &Settings,
    topics: &Topics,
    models: &[Arc<ModelInfo>],
    health: &Health,
) -> Value {
    let device = format!("moed_{}", settings.node.replace('.', "_"));
    let mut components = Map::new();
    let known = health.values();
    for (key, name, class, unit) in SENSORS {
        // What this board can't measure would be shown as unknown for ever.
        if !known.iter().any(|(known, value)| *known == key && value.is_some()) {
            continue;
        }
        let mut sensor = json!({
            "platform": "sensor",
            "unique_id": format!("{device}_{key}"),
            "name": name,
            "state_topic": topics.health(),
            "value_template": format!("{{{{ value_json.{key} }}}}"),
            "state_class": "measurement",
            "entity_category": "diagnostic",
        });
        insert(&mut sensor, "device_class", class);
        insert(&mut sensor, "unit_of_measurement", unit);
        components.insert(key.to_owned(), sensor);
    }
    for model in models {
        add_model(&mut components, &device, settings, topics, model);
    }
    json!({
        "device": {
            "identifiers": [device],
            "name": format!("moed {}", settings.node),
            "manufacturer": "moed",
            "model": "Inference daemon",
            "sw_version": env!("CARGO_PKG_VERSION"),
        },
        "origin": { "name": "moed", "sw_version": env!("CARGO_PKG_VERSION") },
        "availability": [{
            "topic": topics.status(),
            // Home Assistant does not know `stopped`.
            "value_template": "{{ 'online' if value == 'online' else 'offline' }}",
        }],
        "qos": 1,
        "components": components,
    })
}

fn insert(component: &mut Value, key: &str, value: Option<&str>) {
    if let (Value::Object(fields), Some(value)) = (component, value) {
        fields.insert(key.to_owned(), json!(value));
    }
}

fn add_model(
    components: &mut Map<String, Value>,
    device: &str,
    settings: &Settings,
    topics: &Topics,
    model: &ModelInfo,
) {
    let name = &model.name;
    let key = name.replace(['.', '-'], "_");
    let mut update = json!({
        "platform": "update",
        "unique_id": format!("{device}_{key}_update"),
        "name": format!("Model {name}"),
        "title": name,
        "entity_category": "diagnostic",
        "state_topic": topics.model_state(name),
        "value_template": "{{ {'installed_version': value_json.version, \
                           'latest_version': value_json.latest_version} | tojson }}",
    });
    if settings.is_admin_allowed {
        insert(&mut update, "command_topic", Some(&topics.request("load")));
        insert(&mut update, "payload_install", Some(&json!({ "model": name }).to_string()));
    }
    components.insert(format!("{key}_update"), update);
    if model.task != "intent" {
        return;
    }
    components.insert(
        format!("{key}_sentence"),
        json!({
            "platform": "text",
            "unique_id": format!("{device}_{key}_sentence"),
            "name": format!("Ask {name}"),
            "icon": "mdi:comment-question-outline",
            "command_topic": topics.infer(name, CLIENT),
            "command_template": "{\"text\": {{ value | tojson }}}",
            "min": 1,
            "max": SENTENCE_CHARS_MAX,
        }),
    );
    components.insert(
        format!("{key}_answer"),
        json!({
            "platform": "sensor",
            "unique_id": format!("{device}_{key}_answer"),
            "name": format!("Answer of {name}"),
            "icon": "mdi:comment-check-outline",
            "state_topic": topics.result(name, CLIENT),
            "value_template": "{{ value_json.intent | default(value_json.code) }}",
            "json_attributes_topic": topics.result(name, CLIENT),
        }),
    );
}
