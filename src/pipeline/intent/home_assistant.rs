//! A home as Home Assistant keeps it: its registries of floors, areas, devices and entities.
//!
//! They are the files `core.*_registry` of its folder `.storage`, or the answers to
//! `config/*_registry/list` of its WebSocket interface, in JSON. Fields that are not needed are
//! passed over, because each release has other ones. Entities that are disabled, hidden, or not
//! exposed to its voice assistants are left out.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::home::{Area, Device, Home, Named};
use crate::fields::FieldError;

/// The four registries' texts.
#[derive(Debug, Clone, Copy)]
pub struct Registries<'a> {
    pub floors: &'a str,
    pub areas: &'a str,
    pub devices: &'a str,
    pub entities: &'a str,
}

#[derive(Deserialize)]
struct FloorEntry {
    floor_id: String,
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
}

#[derive(Deserialize)]
struct AreaEntry {
    /// `id` in files, `area_id` over the wire.
    #[serde(alias = "area_id")]
    id: String,
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    floor_id: Option<String>,
}

#[derive(Deserialize)]
struct DeviceEntry {
    id: String,
    area_id: Option<String>,
    name: Option<String>,
    name_by_user: Option<String>,
}

#[derive(Deserialize)]
struct EntityEntry {
    entity_id: String,
    name: Option<String>,
    original_name: Option<String>,
    #[serde(default)]
    has_entity_name: bool,
    area_id: Option<String>,
    device_id: Option<String>,
    device_class: Option<String>,
    original_device_class: Option<String>,
    /// Newer releases write null for the entity's own name.
    #[serde(default)]
    aliases: Vec<Option<String>>,
    disabled_by: Option<String>,
    hidden_by: Option<String>,
    #[serde(default)]
    options: Value,
}

impl EntityEntry {
    fn is_spoken_of(&self) -> bool {
        let exposed = self.options.pointer("/conversation/should_expose").and_then(Value::as_bool);
        self.disabled_by.is_none() && self.hidden_by.is_none() && exposed != Some(false)
    }

    fn name(&self, device: Option<&DeviceEntry>) -> String {
        if let Some(name) = self.name.clone().filter(|name| !name.is_empty()) {
            return name;
        }
        let device = device.and_then(|device| device.name_by_user.clone().or(device.name.clone()));
        let parts = match (device, self.original_name.clone()) {
            (Some(device), Some(own)) if self.has_entity_name => format!("{device} {own}"),
            (Some(device), None) => device,
            (_, Some(own)) => own,
            (None, None) => String::new(),
        };
        if !parts.is_empty() {
            return parts;
        }
        let object = self.entity_id.split_once('.').map_or(self.entity_id.as_str(), |(_, id)| id);
        object.replace('_', " ")
    }
}

impl Home {
    /// Reads Home Assistant's registries.
    ///
    /// # Errors
    /// If one of them is not what its name says.
    pub fn from_registries(registries: Registries<'_>) -> Result<Self, FieldError> {
        let floors: Vec<FloorEntry> = entries(registries.floors, "floors")?;
        let areas: Vec<AreaEntry> = entries(registries.areas, "areas")?;
        let devices: Vec<DeviceEntry> = entries(registries.devices, "devices")?;
        let entities: Vec<EntityEntry> = entries(registries.entities, "entities")?;
        let mut home = Self::default();
        let floor_at: HashMap<&str, usize> =
            floors.iter().enumerate().map(|(at, floor)| (floor.floor_id.as_str(), at)).collect();
        let area_at: HashMap<&str, usize> =
            areas.iter().enumerate().map(|(at, area)| (area.id.as_str(), at)).collect();
        let devices: HashMap<&str, &DeviceEntry> =
            devices.iter().map(|device| (device.id.as_str(), device)).collect();
        for entity in entities.iter().filter(|entity| entity.is_spoken_of()) {
            let device = entity.device_id.as_deref().and_then(|id| devices.get(id)).copied();
            let area = entity.area_id.as_deref();
            let area = area.or_else(|| device.and_then(|device| device.area_id.as_deref()));
            let class = entity.device_class.as_ref().or(entity.original_device_class.as_ref());
            home.devices.push(Device {
                named: Named {
                    id: entity.entity_id.clone(),
                    name: entity.name(device),
                    aliases: entity.aliases.iter().flatten().cloned().collect(),
                },
                area: area.and_then(|id| area_at.get(id)).copied(),
                device_class: class.cloned().unwrap_or_default(),
            });
        }
        for area in &areas {
            let floor = area.floor_id.as_deref().and_then(|id| floor_at.get(id)).copied();
            home.areas.push(Area { named: named(&area.id, &area.name, &area.aliases), floor });
        }
        for floor in &floors {
            home.floors.push(named(&floor.floor_id, &floor.name, &floor.aliases));
        }
        home.check()?;
        Ok(home)
    }
}

fn named(id: &str, name: &str, aliases: &[String]) -> Named {
    Named { id: id.to_owned(), name: name.to_owned(), aliases: aliases.to_vec() }
}

/// The list `key` of a registry: in a file under `data`, over the wire under `result`, or alone.
fn entries<T: DeserializeOwned>(text: &str, key: &str) -> Result<Vec<T>, FieldError> {
    let wrong = |error: serde_json::Error| FieldError::new(key, format!("no registry: {error}"));
    let mut registry: Value = serde_json::from_str(text).map_err(wrong)?;
    let list = registry
        .pointer_mut(&format!("/data/{key}"))
        .map(Value::take)
        .or_else(|| registry.pointer_mut("/result").map(Value::take))
        .unwrap_or(registry);
    serde_json::from_value(list).map_err(wrong)
}
