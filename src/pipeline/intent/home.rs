//! Whose sentences these are: the floors, areas, devices, people and lists of one home.
//!
//! Read from `home.toml` here, or from Home Assistant's registries in
//! [`home_assistant`](super::home_assistant). References are indices that are known to be right.

use std::collections::BTreeSet;

use crate::fields::{FieldError, Fields};

const FLOORS_MAX: usize = 64;
const AREAS_MAX: usize = 512;
const DEVICES_MAX: usize = 8192;
const PEOPLE_MAX: usize = 256;
const LISTS_MAX: usize = 256;
const ALIASES_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 128;

/// Something that has an id for programs and names for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub id: String,
    pub name: String,
    pub aliases: Vec<String>,
}

/// A room, a garden, a garage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Area {
    pub named: Named,
    /// Its place among [`Home::floors`].
    pub floor: Option<usize>,
}

/// Something that can be switched, set or asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its id is `DOMAIN.OBJECT`, as in `light.kitchen_main`.
    pub named: Named,
    /// Its place among [`Home::areas`].
    pub area: Option<usize>,
    /// What kind of its domain it is (`blind`, `temperature`); empty if nothing was said.
    pub device_class: String,
}

impl Device {
    /// `light` of `light.kitchen_main`.
    pub fn domain(&self) -> &str {
        self.named.id.split_once('.').map_or("", |(domain, _)| domain)
    }
}

/// A home.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Home {
    pub floors: Vec<Named>,
    pub areas: Vec<Area>,
    pub devices: Vec<Device>,
    pub people: Vec<Named>,
    pub lists: Vec<Named>,
}

impl Home {
    /// Reads `home.toml`.
    ///
    /// # Errors
    /// Names the first field that is missing, wrong, not known, or refers to nothing.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::parse(text)?;
        let mut home = Self::default();
        for mut floor in fields.tables("floors", 0..=FLOORS_MAX)? {
            home.floors.push(read_named(&mut floor)?);
            floor.finish()?;
        }
        for mut area in fields.tables("areas", 0..=AREAS_MAX)? {
            let named = read_named(&mut area)?;
            let floors = home.floors.iter().map(|floor| floor.id.as_str());
            let floor = read_reference(&mut area, "floor", floors)?;
            home.areas.push(Area { named, floor });
            area.finish()?;
        }
        for mut device in fields.tables("devices", 0..=DEVICES_MAX)? {
            let named = read_named(&mut device)?;
            if named.id.split_once('.').is_none_or(|(a, b)| a.is_empty() || b.is_empty()) {
                return Err(device.error("id", "write DOMAIN.NAME, as in `light.kitchen_main`"));
            }
            let areas = home.areas.iter().map(|area| area.named.id.as_str());
            let area = read_reference(&mut device, "area", areas)?;
            let device_class = device.text_or_none("device_class", 0..=NAME_BYTES_MAX)?;
            let device_class = device_class.unwrap_or_default();
            home.devices.push(Device { named, area, device_class });
            device.finish()?;
        }
        for (key, max) in [("people", PEOPLE_MAX), ("lists", LISTS_MAX)] {
            for mut entry in fields.tables(key, 0..=max)? {
                let named = read_named(&mut entry)?;
                entry.finish()?;
                if key == "people" { home.people.push(named) } else { home.lists.push(named) }
            }
        }
        fields.finish()?;
        home.check()?;
        Ok(home)
    }

    /// Refuses more of anything than the limits say, and ids that are there twice.
    pub(super) fn check(&self) -> Result<(), FieldError> {
        for (key, count, max) in [
            ("floors", self.floors.len(), FLOORS_MAX),
            ("areas", self.areas.len(), AREAS_MAX),
            ("devices", self.devices.len(), DEVICES_MAX),
        ] {
            if count > max {
                let cause = format!("{count} entries; up to {max} are allowed");
                return Err(FieldError::new(key, cause));
            }
        }
        self.refuse_doubles()
    }

    /// Ids are what answers refer to.
    fn refuse_doubles(&self) -> Result<(), FieldError> {
        let floors = self.floors.iter().map(|floor| ("floors", floor));
        let areas = self.areas.iter().map(|area| ("areas", &area.named));
        let devices = self.devices.iter().map(|device| ("devices", &device.named));
        let people = self.people.iter().map(|person| ("people", person));
        let lists = self.lists.iter().map(|list| ("lists", list));
        let mut seen = BTreeSet::new();
        for (key, named) in floors.chain(areas).chain(devices).chain(people).chain(lists) {
            if !seen.insert((key, named.id.as_str())) {
                let cause = format!("the id `{}` is there twice; keep one", named.id);
                return Err(FieldError::new(key, cause));
            }
        }
        Ok(())
    }
}

fn read_named(fields: &mut Fields) -> Result<Named, FieldError> {
    Ok(Named {
        id: fields.text("id", 1..=NAME_BYTES_MAX)?,
        name: fields.text("name", 1..=NAME_BYTES_MAX)?,
        aliases: fields.texts("aliases", 0..=ALIASES_MAX, 1..=NAME_BYTES_MAX)?,
    })
}

fn read_reference<'a>(
    fields: &mut Fields,
    key: &'static str,
    mut ids: impl Iterator<Item = &'a str>,
) -> Result<Option<usize>, FieldError> {
    match fields.text_or_none(key, 0..=NAME_BYTES_MAX)?.filter(|id| !id.is_empty()) {
        None => Ok(None),
        Some(id) => match ids.position(|other| other == id) {
            Some(at) => Ok(Some(at)),
            None => Err(fields.error(key, format!("there is no {key} with the id `{id}`; add it"))),
        },
    }
}
