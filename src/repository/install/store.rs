//! Installed models on the disk: published, withdrawn and removed, each by one rename.
//!
//! ```text
//! intent/1.1.0/             a version; the repository loads the newest
//! intent/1.2.0.withdrawn/   one that was rolled back from
//! intent/trial              the version that is on trial, and how often it was started
//! .staging/                 what is on its way in or out; emptied at each start
//! ```
//!
//! Every step is on the disk before the next begins, and a version's folder is whole before it
//! gets its name: a power cut leaves what was there, or what was to be there. Knows no engine.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::super::scan::is_bundle;
use crate::bundle::Version;

const STAGING: &str = ".staging";
const WITHDRAWN: &str = ".withdrawn";
const TRIAL: &str = "trial";
/// Of the trial's file.
const TRIAL_BYTES_MAX: u64 = 64;

/// The directory of installed models.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// A version on trial, and how often it was started since it was last known to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnTrial {
    pub version: Version,
    pub starts: u32,
}

impl Store {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether `path` is a version that was installed.
    pub fn holds(&self, path: &Path) -> bool {
        path.parent().and_then(Path::parent) == Some(&self.dir)
    }

    /// Removes what a power cut has left half done. Writes nothing if there is nothing.
    pub fn tidy(&self) -> io::Result<()> {
        self.empty_staging()?;
        for (name, model) in self.models()? {
            let is_there = |trial: OnTrial| self.place(&name, trial.version).exists();
            if !self.on_trial(&name).is_some_and(is_there) {
                self.set_trial(&name, None)?;
            }
            // A power cut after the first step of a new model, or the last of a removal.
            match fs::remove_dir(&model) {
                Ok(()) => sync(&self.dir)?,
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The folder for what is on its way, empty.
    pub fn staging(&self) -> io::Result<PathBuf> {
        self.empty_staging()?;
        let staging = self.staging_dir();
        fs::create_dir_all(&staging)?;
        sync(&self.dir)?;
        Ok(staging)
    }

    /// Where [`staging`](Self::staging) is.
    pub fn staging_dir(&self) -> PathBuf {
        self.dir.join(STAGING)
    }

    pub fn empty_staging(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.staging_dir()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Bytes that could be written.
    pub fn free_bytes(&self) -> io::Result<u64> {
        fs::create_dir_all(&self.dir)?;
        let space = rustix::fs::statvfs(&self.dir)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Where a version is, once it is published.
    pub fn place(&self, name: &str, version: Version) -> PathBuf {
        self.dir.join(name).join(version.to_string())
    }

    /// Gives a whole bundle in the staging folder its name. What has that name goes.
    pub fn publish(&self, staged: &Path, name: &str, version: Version) -> io::Result<PathBuf> {
        let (model, place) = (self.dir.join(name), self.place(name, version));
        if !model.exists() {
            fs::create_dir(&model)?;
            sync(&self.dir)?;
        }
        let staging = self.staging_dir();
        for old in [place.clone(), withdrawn(&place)] {
            if old.exists() {
                fs::rename(&old, staging.join("replaced"))?;
                sync(&model)?;
                fs::remove_dir_all(staging.join("replaced"))?;
            }
        }
        fs::rename(staged, &place)?;
        sync(&model)?;
        sync(&staging)?;
        Ok(place)
    }

    /// Takes a version out of what is loaded, also after the next start. Its files stay.
    pub fn withdraw(&self, place: &Path) -> io::Result<()> {
        fs::rename(place, withdrawn(place))?;
        place.parent().map_or(Ok(()), sync)
    }

    /// Gives back what was withdrawn of a model.
    pub fn restore(&self, name: &str) -> io::Result<()> {
        let model = self.dir.join(name);
        for (file, path) in entries(&model)? {
            let version = file.strip_suffix(WITHDRAWN).and_then(Version::parse);
            if let Some(version) = version.filter(|one| !self.place(name, *one).exists()) {
                fs::rename(path, self.place(name, version))?;
                sync(&model)?;
            }
        }
        Ok(())
    }

    /// Removes a version, or with none all of them; says whether there was one.
    pub fn remove(&self, name: &str, version: Option<Version>) -> io::Result<bool> {
        let model = self.dir.join(name);
        let found = match version {
            None => vec![model.clone()],
            Some(version) => {
                let place = self.place(name, version);
                vec![withdrawn(&place), place]
            }
        };
        let found: Vec<_> = found.into_iter().filter(|path| path.exists()).collect();
        for path in &found {
            self.discard(path)?;
        }
        // The last one takes the folder with it.
        if entries(&model)?.iter().all(|(file, _)| file == TRIAL) && model.exists() {
            self.discard(&model)?;
        }
        Ok(!found.is_empty())
    }

    /// Removes the oldest versions of a model until there are no more than `versions_max`; those
    /// in `kept` stay.
    pub fn prune(&self, name: &str, kept: &[PathBuf], versions_max: usize) -> io::Result<()> {
        let mut versions: Vec<_> = entries(&self.dir.join(name))?
            .into_iter()
            .filter_map(|(file, path)| {
                let version = Version::parse(file.strip_suffix(WITHDRAWN).unwrap_or(&file))?;
                Some((!file.ends_with(WITHDRAWN), version, path))
            })
            .collect();
        // Withdrawn ones first.
        versions.sort();
        let mut extra = versions.len().saturating_sub(versions_max);
        for (_, _, path) in versions {
            if extra > 0 && !kept.contains(&path) {
                self.discard(&path)?;
                extra -= 1;
            }
        }
        Ok(())
    }

    /// By rename first, so that nobody sees half of it.
    fn discard(&self, path: &Path) -> io::Result<()> {
        let staging = self.staging_dir();
        fs::create_dir_all(&staging)?;
        let discarded = staging.join("discarded");
        fs::rename(path, &discarded)?;
        path.parent().map_or(Ok(()), sync)?;
        fs::remove_dir_all(discarded)?;
        // It stays if there is anything else in it.
        drop(fs::remove_dir(staging));
        Ok(())
    }

    /// The version of a model that is on trial.
    pub fn on_trial(&self, name: &str) -> Option<OnTrial> {
        let path = self.dir.join(name).join(TRIAL);
        let length = fs::metadata(&path).ok()?.len();
        let text = (length <= TRIAL_BYTES_MAX).then(|| fs::read_to_string(&path).ok())??;
        let (version, starts) = text.trim().split_once(' ')?;
        Some(OnTrial { version: Version::parse(version)?, starts: starts.parse().ok()? })
    }

    /// Notes that a version is on trial, or that none is.
    pub fn set_trial(&self, name: &str, trial: Option<OnTrial>) -> io::Result<()> {
        let model = self.dir.join(name);
        let path = model.join(TRIAL);
        if let Some(OnTrial { version, starts }) = trial {
            let staging = self.staging_dir();
            fs::create_dir_all(&staging)?;
            let partial = staging.join(TRIAL);
            let mut file = File::create(&partial)?;
            file.write_all(format!("{version} {starts}\n").as_bytes())?;
            file.sync_all()?;
            if !model.exists() {
                fs::create_dir(&model)?;
                sync(&self.dir)?;
            }
            fs::rename(partial, path)?;
            // It stays if there is anything else in it.
            drop(fs::remove_dir(staging));
        } else {
            match fs::remove_file(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                removed => removed?,
            }
        }
        sync(&model)
    }

    /// Names and folders of all models that something was installed of. A bundle that a person
    /// has put there is none.
    pub fn models(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let models = entries(&self.dir)?.into_iter();
        let is_ours = |(name, path): &(String, PathBuf)| {
            !name.starts_with('.') && path.is_dir() && !is_bundle(path)
        };
        Ok(models.filter(is_ours).collect())
    }
}

fn withdrawn(place: &Path) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(WITHDRAWN);
    PathBuf::from(name)
}

/// Names and paths in a folder; none if it is not there.
fn entries(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let listing = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing?,
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// What has been renamed or made in a folder is on the disk when this returns.
fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
