//! Topics: which the daemon listens to, what a message on one of them asks for, and where a reply
//! may go. Knows no message.

use super::settings::Settings;

/// The longest topic that a reply may go to, in bytes.
pub const REPLY_TOPIC_BYTES_MAX: usize = 256;

/// Levels beside nodes: no node can be called so.
pub const RESERVED: [&str; 2] = ["pool", "reply"];

/// Whether `text` can be one level of ours: a node, a model, a client.
pub fn is_level(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(is_plain)
}

/// Whether `text` is a topic that messages may be published to: no filter, not the broker's own.
pub fn is_topic(text: &str) -> bool {
    let is_foreign = |c: char| c == '+' || c == '#' || c.is_control();
    !text.is_empty() && !text.starts_with('$') && !text.contains(is_foreign)
}

/// A filter to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub path: String,
    /// One of several daemons gets each message.
    pub is_shared: bool,
}

/// What a message on a topic asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Infer {
        model: String,
        version: Option<String>,
        /// Names the client where MQTT 5's properties can't.
        client: Option<String>,
        /// Where replies go that are given no topic.
        reply: String,
    },
    Admin {
        verb: String,
        /// Where replies go that are given no topic.
        reply: String,
    },
    /// Home Assistant has started or is going.
    HomeAssistant,
}

/// The topics of one daemon.
#[derive(Debug, Clone)]
pub struct Topics {
    base: String,
    node: String,
    pool: Option<String>,
    is_admin_allowed: bool,
    discovery_prefix: Option<String>,
    reply_prefixes: Vec<String>,
}

impl Topics {
    pub fn new(settings: &Settings) -> Self {
        Self {
            base: settings.base.clone(),
            node: settings.node.clone(),
            pool: settings.pool.clone(),
            is_admin_allowed: settings.is_admin_allowed,
            discovery_prefix: settings.discovery_prefix.clone(),
            reply_prefixes: settings.reply_prefixes.clone(),
        }
    }

    fn own(&self, rest: &str) -> String {
        format!("{}/{}/{rest}", self.base, self.node)
    }

    pub fn status(&self) -> String {
        self.own("status")
    }

    pub fn info(&self) -> String {
        self.own("info")
    }

    pub fn health(&self) -> String {
        self.own("health")
    }

    pub fn model_state(&self, model: &str) -> String {
        self.own(&format!("models/{model}/state"))
    }

    pub fn infer(&self, model: &str, client: &str) -> String {
        self.own(&format!("models/{model}/infer/{client}"))
    }

    pub fn result(&self, model: &str, client: &str) -> String {
        self.own(&format!("models/{model}/result/{client}"))
    }

    pub fn request(&self, verb: &str) -> String {
        self.own(&format!("request/{verb}"))
    }

    /// The one discovery message of this daemon.
    pub fn discovery(&self) -> Option<String> {
        let prefix = self.discovery_prefix.as_ref()?;
        Some(format!("{prefix}/device/moed_{}/config", self.node.replace('.', "_")))
    }

    /// All that the daemon listens to; shared ones last.
    pub fn filters(&self) -> Vec<Filter> {
        let filter = |path: String, is_shared| Filter { path, is_shared };
        let mut filters: Vec<Filter> = [
            "models/+/infer",
            "models/+/infer/+",
            "models/+/versions/+/infer",
            "models/+/versions/+/infer/+",
        ]
        .map(|rest| filter(self.own(rest), false))
        .to_vec();
        if self.is_admin_allowed {
            filters.push(filter(self.own("request/+"), false));
        }
        if let Some(prefix) = &self.discovery_prefix {
            filters.push(filter(format!("{prefix}/status"), false));
        }
        if let Some(group) = &self.pool {
            for rest in ["infer", "infer/+"] {
                let path = format!("$share/{group}/{}/pool/models/+/{rest}", self.base);
                filters.push(filter(path, true));
            }
        }
        filters
    }

    /// What a message on `topic` asks for; `None` if nothing that was subscribed to.
    pub fn route(&self, topic: &str) -> Option<Route> {
        if let Some(prefix) = &self.discovery_prefix
            && topic.strip_prefix(prefix.as_str()) == Some("/status")
        {
            return Some(Route::HomeAssistant);
        }
        let rest = topic.strip_prefix(self.base.as_str())?.strip_prefix('/')?;
        let (root, rest) = rest.split_once('/')?;
        let is_pool = root == "pool" && self.pool.is_some();
        if root != self.node && !is_pool {
            return None;
        }
        let levels: Vec<&str> = rest.split('/').collect();
        if !levels.iter().all(|level| is_level(level)) {
            return None;
        }
        let infer = |model: &str, version: Option<&str>, client: Option<&str>| {
            let to = client.map(|client| format!("/{client}")).unwrap_or_default();
            Some(Route::Infer {
                model: model.to_owned(),
                version: version.map(str::to_owned),
                client: client.map(str::to_owned),
                reply: format!("{}/{root}/models/{model}/result{to}", self.base),
            })
        };
        match *levels.as_slice() {
            ["models", model, "infer"] => infer(model, None, None),
            ["models", model, "infer", client] => infer(model, None, Some(client)),
            ["models", model, "versions", version, "infer"] if !is_pool => {
                infer(model, Some(version), None)
            }
            ["models", model, "versions", version, "infer", client] if !is_pool => {
                infer(model, Some(version), Some(client))
            }
            ["request", verb] if self.is_admin_allowed && !is_pool => Some(Route::Admin {
                verb: verb.to_owned(),
                reply: self.own(&format!("response/{verb}")),
            }),
            _ => None,
        }
    }

    /// Whether a reply may go to `topic`, which a client has chosen; if not, why.
    ///
    /// The daemon may publish where its clients may not, so it does not let itself be sent there;
    /// and an answer that is a request to this daemon or another would go round for ever.
    ///
    /// # Errors
    /// A cause, for the client.
    pub fn check_reply(&self, topic: &str) -> Result<(), &'static str> {
        if topic.len() > REPLY_TOPIC_BYTES_MAX {
            return Err("longer than 256 bytes: give a shorter one");
        }
        if !is_topic(topic) {
            return Err("not a topic to publish to: give one without `+`, `#` and `$`");
        }
        let is_under = |prefix: &str| {
            topic.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if self.discovery_prefix.as_ref().is_some_and(|prefix| is_under(prefix)) {
            return Err("belongs to Home Assistant: give another");
        }
        if is_under(&self.base) {
            let mut levels = topic.split('/').skip(self.base.split('/').count());
            let is_result = match (levels.next(), levels.next()) {
                (Some("reply"), Some(_)) => true,
                (Some(_), Some("models")) => levels.nth(1) == Some("result"),
                _ => false,
            };
            if !is_result {
                return Err("belongs to a daemon: give another");
            }
        }
        let is_allowed = |prefix: &String| topic.starts_with(prefix.as_str());
        if !self.reply_prefixes.is_empty() && !self.reply_prefixes.iter().any(is_allowed) {
            return Err("not among those that this daemon may reply to: ask its owner which");
        }
        Ok(())
    }
}
