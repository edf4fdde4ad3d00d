//! Where log records go: to the journal with their fields, or to standard error as lines.

use std::fmt::Write as _;
use std::io::Write as _;

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

/// Sends records from now on to the journal, if standard error goes there, else to standard error
/// itself. Also panics, which are caught where they happen, become records.
pub fn start(level: LevelFilter) {
    let journal = if connected_to_journal() { JournalLog::new().ok() } else { None };
    let logger: Box<dyn Log> = match journal {
        Some(journal) => Box::new(journal.with_syslog_identifier("moed".to_owned())),
        None => Box::new(Lines),
    };
    // Somebody else's logger, in a test say, is as good.
    if log::set_boxed_logger(logger).is_ok() {
        std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
    }
    log::set_max_level(level);
}

/// Writes a record as a line to standard error, its fields behind it.
struct Lines;

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // Standard error is the last resort: if it can't be written, nobody can be told.
            let _ = std::io::stderr().lock().write_all(line(record).as_bytes());
        }
    }

    fn flush(&self) {}
}

/// One record is one line, whatever is in it.
fn line(record: &Record<'_>) -> String {
    let level = record.level().as_str().to_ascii_lowercase();
    let mut line = format!("moed: {level}: {}", record.args()).replace(['\n', '\r'], " ");
    let fields = record.key_values().visit(&mut Fields(&mut line));
    debug_assert!(fields.is_ok(), "writing to a string does not fail");
    line.push('\n');
    line
}

struct Fields<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = value.to_string().replace(['\n', '\r'], " ");
        write!(self.0, " {key}={value}").map_err(|_| Error::msg("out of memory"))
    }
}
