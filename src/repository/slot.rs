//! One name's place: the version that serves it, or why none does.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::version::Version;
use crate::infer::ModelState;

/// How it stands with a name, when nothing of it serves, and what went wrong last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub state: ModelState,
    /// The version that was tried last.
    pub version: Option<String>,
    /// What went wrong last, also while an older version serves. For the owner.
    pub reason: Option<String>,
}

/// A name, and what serves it. Readers never wait.
pub struct Slot {
    name: Arc<str>,
    current: ArcSwapOption<Version>,
    standing: ArcSwap<Standing>,
}

impl Slot {
    pub fn new(name: &str) -> Self {
        let standing = Standing { state: ModelState::Loading, version: None, reason: None };
        Self {
            name: name.into(),
            current: ArcSwapOption::empty(),
            standing: ArcSwap::from_pointee(standing),
        }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The version that serves.
    pub fn current(&self) -> Option<Arc<Version>> {
        self.current.load_full()
    }

    /// Whether `version` is the one that serves.
    pub fn is_current(&self, version: Option<&Arc<Version>>) -> bool {
        match (&*self.current.load(), version) {
            (Some(current), Some(version)) => Arc::ptr_eq(current, version),
            (None, None) => true,
            _ => false,
        }
    }

    pub fn standing(&self) -> Arc<Standing> {
        self.standing.load_full()
    }

    /// Puts a version in the place of the one that serves.
    pub fn serve(&self, version: Option<Arc<Version>>) {
        self.current.store(version);
    }

    pub fn stand(&self, standing: Standing) {
        self.standing.store(Arc::new(standing));
    }
}
