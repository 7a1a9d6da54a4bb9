//! TLS on the edge's own listener: one certificate and key from files, HTTP/1.1 only.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use serde::Deserialize;

/// Makes TLS connections of plain ones.
pub(crate) type Tls = tokio_rustls::TlsAcceptor;

/// The `[edge.tls]` table of the settings file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The certificate and those between it and its root, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
}

/// Says what is wrong with certificate and key; the text names the file.
///
/// # Errors
/// They cannot be served.
pub fn check(files: &Files) -> Result<(), String> {
    load(files).map(drop)
}

/// Reads certificate and key; the error names the file.
pub(crate) fn load(files: &Files) -> Result<Tls, String> {
    let in_file = |path: &Path, error: &dyn std::error::Error| {
        format!("{}: {error}: expected PEM", path.display())
    };
    let certificate = &files.certificate;
    let exposed = std::fs::metadata(&files.key)
        .map_err(|error| format!("{}: {}", files.key.display(), text::io_error(&error)))?
        .mode()
        & 0o007
        != 0;
    if exposed {
        return Err(format!(
            "{}: everybody on this machine may read or change this key: chmod 640 or 600",
            files.key.display()
        ));
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(read(certificate)?.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| in_file(certificate, &error))?;
    if chain.is_empty() {
        return Err(format!(
            "{}: no certificate in it: expected PEM, with the certificate first",
            certificate.display()
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(read(&files.key)?.as_bytes())
        .map_err(|error| in_file(&files.key, &error))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => format!(
                "{}: the key in {} is that of another certificate: name the two that were made together",
                certificate.display(),
                files.key.display()
            ),
            error => format!("{}: {error}", certificate.display()),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A visitor comes for one answer: remembering the session would cost more than it saves.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Tls::from(Arc::new(config)))
}

/// The text of a PEM file, as editors of every system save it.
fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path)
        .map_err(|error| format!("{}: {}", path.display(), text::io_error(&error)))?;
    match text::decode(&bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(not_text) => Err(format!("{}: {}", path.display(), not_text.message)),
    }
}
