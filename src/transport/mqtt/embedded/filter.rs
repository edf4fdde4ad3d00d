//! Topics, filters, and which of them match.

/// Of a topic or a filter, in bytes.
const BYTES_MAX: usize = 1024;

/// Whether messages may be published to `topic`.
pub fn is_topic(topic: &str) -> bool {
    (1..=BYTES_MAX).contains(&topic.len()) && !topic.starts_with('$') && !topic.contains(['+', '#'])
}

/// Whether `filter`, which may be a shared one, can be subscribed to.
pub fn is_filter(filter: &str) -> bool {
    if !(1..=BYTES_MAX).contains(&filter.len()) {
        return false;
    }
    let filter = match (filter.starts_with("$share/"), shared(filter)) {
        (false, _) => filter,
        (true, Some((group, filter))) if !group.contains(['+', '#']) => filter,
        (true, _) => return false,
    };
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_well = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            level => !level.contains(['+', '#']),
        };
        if !is_well {
            return false;
        }
    }
    true
}

/// A shared filter's group, and the filter itself.
pub fn shared(filter: &str) -> Option<(&str, &str)> {
    let (group, filter) = filter.strip_prefix("$share/")?.split_once('/')?;
    (!group.is_empty() && !filter.is_empty()).then_some((group, filter))
}

/// Whether a message on `topic` is for who subscribed to `filter`, which is no shared one.
pub fn matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            // The level above it belongs to it too.
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}
