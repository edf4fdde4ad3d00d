//! `moed bundle`: a bundle of any ONNX file that runs here.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, failure, print};
use crate::bundle::{self, Limits, Recipe, Version, write};
use crate::engine::tract::Tract;

/// Makes a bundle of an ONNX file: signature, hashes, memory, recorded answers.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    moed bundle model.onnx --licence MIT --provenance 'exported from ...' --to models/mine\n  \
    moed serve --models models\n\n\
    Its task is `tensor`: what clients give is what the graph takes. Experts are laid out one\n\
    after the other, each on pages of its own. The recorded answers are what the model gives\n\
    here for numbers from a seed; wherever the bundle is loaded, they must come out again.")]
pub struct Bundle {
    /// The ONNX file; its external data lies beside it.
    model: PathBuf,
    /// The directory to be made; `models/NAME` if none is given.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// The model's name; that of the directory if none is given.
    #[arg(long)]
    name: Option<String>,
    #[arg(long, default_value = "1.0.0")]
    version: String,
    /// Under which licence the model may be used.
    #[arg(long, default_value = "unknown")]
    licence: String,
    /// How the model came about.
    #[arg(long, default_value = "made by `moed bundle`")]
    provenance: String,
    /// Of the numbers that answers are recorded for.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Packs the bundle into one `.moed` file too, beside it.
    #[arg(long)]
    pack: bool,
}

impl Bundle {
    pub fn run(self) -> Result<(), Failure> {
        let stem = |path: &PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
        let name = self.name.or_else(|| self.to.as_ref().and_then(stem));
        let name = name.or_else(|| stem(&self.model)).ok_or("name: give one with --name")?;
        let to = self.to.unwrap_or_else(|| PathBuf::from("models").join(&name));
        let version = Version::parse(&self.version);
        let version = version.ok_or("version: not three numbers; write it as 1.0.0")?;
        let recipe = Recipe {
            model: self.model,
            name,
            version,
            licence: self.licence,
            provenance: self.provenance,
            seed: self.seed,
        };
        let bundle = write(&recipe, &to, &Tract, &Limits::default()).map_err(failure)?;
        let manifest = bundle.manifest();
        print(&format!(
            "{}: {} {}, {} files, about {} MiB in memory\n",
            to.display(),
            manifest.name,
            manifest.version,
            manifest.files.len() + 1,
            manifest.resident_bytes.div_ceil(1 << 20),
        ))?;
        if self.pack {
            let archive = to.with_extension("moed");
            bundle::pack(&bundle, &archive).map_err(failure)?;
            print(&format!("{}: the same in one file\n", archive.display()))?;
        }
        Ok(())
    }
}
