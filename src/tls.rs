//! The certificate and its key: read from files, checked, and given to the handshakes that begin from then on.
//!
//! A file that cannot be used is refused with a sentence that names the setting. At a start this is the end of the start;
//! at a reload the certificate in use stays.

use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, UNIX_EPOCH};

use rustls::ServerConfig;
use rustls::crypto::ring::{self, Ticketer};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use x509_cert::der::Decode as _;

/// From this time before its end a certificate causes warnings.
pub const WARN_BEFORE: Duration = Duration::from_secs(14 * SECONDS_PER_DAY);

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;
/// A chain with its key has a few KiB; more is another file.
const LARGEST_FILE: u64 = 1024 * 1024;

/// Mode bits of a key's file that are refused for every owner of the file: all for everyone, all but
/// reading for the group.
const OPEN_TO_OTHERS: u32 = 0o037;
/// Reading by the group, which is refused unless root owns the file: Debian's `ssl-cert` group and systemd's credentials
/// give a key to a service in this way.
const OPEN_TO_GROUP: u32 = 0o040;

/// A certificate with its chain and key, and the time of its validity in Unix seconds.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    not_before: u64,
    not_after: u64,
}

impl Certificate {
    /// Reads a chain in PEM, the relay's own certificate first, and the key of that certificate: PKCS#8, PKCS#1 (RSA) or
    /// SEC1 (EC), in PEM, not encrypted.
    ///
    /// # Errors
    ///
    /// A sentence for the operator: a file is missing or no PEM, the key is open to others or that of another certificate.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, String> {
        let of_certificate =
            |reason: String| format!("tls.certificate = {}: {reason}", certificate.display());
        let of_key = |reason: String| format!("tls.key = {}: {reason}", key.display());
        let text = read(certificate, false).map_err(of_certificate)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let chain = chain.map_err(|_| of_certificate("is no PEM that can be read".to_owned()))?;
        let first = chain.first().ok_or("has no certificate in PEM".to_owned());
        let (not_before, not_after) = first.and_then(validity).map_err(of_certificate)?;
        // The errors of the key's parser may quote the key, so none of them is passed on.
        let text = read(key, true).map_err(of_key)?;
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| of_key(why_no_key(&text)))?;
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider());
        let key = key.map_err(|failed| match failed {
            rustls::Error::InconsistentKeys(_) => {
                of_key(format!("is not the key of tls.certificate = {}", certificate.display()))
            }
            rustls::Error::InvalidCertificate(why) => {
                of_certificate(format!("cannot be used: {why:?}"))
            }
            _ => of_key("is of a kind that cannot be used: RSA, P-256, P-384 or Ed25519".into()),
        })?;
        Ok(Self { key: Arc::new(key), not_before, not_after })
    }

    /// When the certificate ends, in Unix seconds.
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// The warning for a certificate that clients refuse at `now`, Unix seconds, or will refuse within [`WARN_BEFORE`].
    pub fn warning(&self, now: u64) -> Option<String> {
        let (not_before, not_after) = (date(self.not_before), date(self.not_after));
        if now < self.not_before {
            return Some(format!(
                "tls.certificate is not valid before {not_before}, and clients refuse it until then"
            ));
        }
        let left = self.not_after.saturating_sub(now);
        if left == 0 {
            return Some(format!(
                "tls.certificate EXPIRED at {not_after}, and clients refuse it: renew it, then send SIGHUP"
            ));
        }
        (left <= WARN_BEFORE.as_secs()).then(|| {
            format!(
                "tls.certificate expires in {} days, at {not_after}: renew it, then send SIGHUP",
                left / SECONDS_PER_DAY
            )
        })
    }
}

/// The key does not print itself.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// The certificate in use, which a reload replaces; connections that are open keep theirs.
#[derive(Debug)]
pub struct InUse(RwLock<Certificate>);

impl InUse {
    pub fn new(certificate: Certificate) -> Self {
        Self(RwLock::new(certificate))
    }

    pub fn get(&self) -> Certificate {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn replace(&self, certificate: Certificate) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certificate;
    }
}

impl ResolvesServerCert for InUse {
    /// The one certificate, whatever name the client asks for: the client decides whether the name is right.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get().key)
    }
}

/// TLS 1.2 and 1.3 with the certificate in use, and HTTP/1.1 alone. A client that comes back saves the signature by a
/// ticket, which costs the relay no memory.
///
/// # Errors
///
/// The system has no random numbers.
pub fn server_config(certificate: Arc<InUse>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// The bytes of a regular file. That of a key must not be open to others.
fn read(path: &Path, is_key: bool) -> Result<Vec<u8>, String> {
    let unreadable = |failed: std::io::Error| format!("cannot be read: {failed}");
    // Before it is opened, because opening a pipe waits for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is not a file".to_owned());
    }
    let file = File::open(path).map_err(unreadable)?;
    let status = file.metadata().map_err(unreadable)?;
    let (mode, owner) = (status.mode() & 0o777, status.uid());
    if is_key && (mode & OPEN_TO_OTHERS != 0 || mode & OPEN_TO_GROUP != 0 && owner != 0) {
        return Err(format!(
            "its mode is {mode:03o}, so others may have the key: chmod 600, or 640 if root owns the file"
        ));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err("is larger than 1 MiB".to_owned());
    }
    Ok(bytes)
}

/// Why a file has no key that can be read, without a word of the file.
fn why_no_key(text: &[u8]) -> String {
    let encrypted = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];
    let is_encrypted = String::from_utf8_lossy(text);
    if encrypted.iter().any(|line| is_encrypted.contains(line)) {
        return "is encrypted, and a relay that starts by itself can ask nobody for the password"
            .to_owned();
    }
    "has no private key in PEM (PKCS#8, PKCS#1 or SEC1)".to_owned()
}

/// From when to when a certificate is valid, in Unix seconds.
fn validity(certificate: &CertificateDer<'_>) -> Result<(u64, u64), String> {
    let certificate = x509_cert::Certificate::from_der(certificate)
        .map_err(|failed| format!("is no certificate that can be used: {failed}"))?;
    let validity = certificate.tbs_certificate.validity;
    let [begin, end] =
        [validity.not_before, validity.not_after].map(|time| time.to_unix_duration().as_secs());
    Ok((begin, end))
}

fn date(unix: u64) -> String {
    // The parser knows no later time than the year 9999, which can be printed.
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(unix)).to_string()
}
