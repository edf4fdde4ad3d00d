//! What proves who the daemon is, read from files for each connection, so that they can be
//! replaced while it runs: the password, and the keys of TLS.
//!
//! A password is in no setting, no argument, no environment, no log, and in no `Debug` output.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::ClientConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, RootCertStore};

use super::settings::{Settings, Tls};

/// Of a password's file.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Why the daemon can't prove who it is, or can't tell the broker's word from another's.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{what}: {path}: {cause}")]
    File { what: &'static str, path: String, cause: String },
    #[error("certificates of the system: {0}; give `ca_file`")]
    System(String),
    #[error("TLS: {0}; look at `ca_file`, `certificate_file` and `key_file`")]
    Tls(#[from] rustls::Error),
}

/// A password. Nothing prints it.
pub struct Password(String);

impl Password {
    /// The password itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

fn of_file(what: &'static str, path: &Path, cause: &dyn ToString) -> SecretError {
    SecretError::File { what, path: path.display().to_string(), cause: cause.to_string() }
}

/// The first line of the password's file, if there is one. A file that everybody may read is
/// refused.
///
/// # Errors
/// The file, and why.
pub fn password(settings: &Settings) -> Result<Option<Password>, SecretError> {
    let Some(path) = &settings.password_file else { return Ok(None) };
    let refused = |cause: &dyn ToString| of_file("password_file", path, cause);
    let file = File::open(path).map_err(|error| refused(&error))?;
    let metadata = file.metadata().map_err(|error| refused(&error))?;
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err(refused(&"everybody may read it: chmod o= it"));
    }
    let mut text = String::new();
    let read = file.take(PASSWORD_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error: io::Error| refused(&error))?;
    match text.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => Ok(Some(Password(line.to_owned()))),
        None => Err(refused(&"its first line is empty: write the password there")),
    }
}

/// How a broker of `mqtts://` is talked to.
///
/// # Errors
/// The file that can't be used, and why.
pub fn tls(tls: &Tls) -> Result<Arc<ClientConfig>, SecretError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted(tls)?);
    let config = match (&tls.certificate_file, &tls.key_file) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("certificate_file", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| of_file("key_file", key, &error))?;
            builder.with_client_auth_cert(chain, key)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, SecretError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| of_file(what, path, &error))?;
    if certificates.is_empty() {
        return Err(of_file(what, path, &"no certificate in it: give one in PEM"));
    }
    Ok(certificates)
}

fn trusted(tls: &Tls) -> Result<RootCertStore, SecretError> {
    let mut roots = RootCertStore::empty();
    match &tls.ca_file {
        Some(path) => {
            for certificate in certificates("ca_file", path)? {
                roots.add(certificate).map_err(|error| of_file("ca_file", path, &error))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let cause =
                    found.errors.first().map_or("there are none".to_owned(), ToString::to_string);
                return Err(SecretError::System(cause));
            }
        }
    }
    Ok(roots)
}
