//! The certificate authority: its key on disk, and the certificates that it makes.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use convoke_model::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer as Signer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::error::IssuerError;
use super::{CA_TTL_MAX, IssuerConfig, SVID_TTL_MIN};

/// Key and certificate in one file, so that one rename replaces both.
const FILE: &str = "authority.pem";

/// Locked for as long as an issuer uses the directory.
const LOCK: &str = "lock";

/// Largest authority file that is read, in bytes. One of ours has about 1,000.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// How far before its making a certificate becomes valid, for clocks that are a little behind.
const BACKDATED: Duration = Duration::from_secs(60);

/// The authority of one trust domain.
#[derive(Debug)]
pub(super) struct Authority {
    trust_domain: TrustDomain,
    svid_ttl: Duration,
    ca_ttl: Duration,
    file: PathBuf,
    key: KeyPair,
    root: Mutex<Root>,
    /// Only held: the lock goes with it.
    _lock: File,
}

/// The authority's certificate.
#[derive(Debug, Clone)]
struct Root {
    der: Bytes,
    renew_at: SystemTime,
}

/// An SVID with its key, as the Workload API sends it.
pub(super) struct Svid {
    /// The certificate, DER.
    pub(super) certificate: Bytes,
    /// Its key, PKCS#8 DER.
    pub(super) key: Bytes,
}

impl Authority {
    pub(super) fn open(config: IssuerConfig, own_uid: u32) -> Result<Self, IssuerError> {
        let IssuerConfig { trust_domain, data_dir, svid_ttl, ca_ttl, .. } = config;
        if svid_ttl < SVID_TTL_MIN || ca_ttl / 2 < svid_ttl || ca_ttl > CA_TTL_MAX {
            let (svid_min, ca_max) = (SVID_TTL_MIN, CA_TTL_MAX);
            return Err(IssuerError::Ttl { svid: svid_ttl, ca: ca_ttl, svid_min, ca_max });
        }
        let lock = open_dir(&data_dir, own_uid)?;
        let file = data_dir.join(FILE);
        let (key, root) = match read_secret(&file, own_uid)? {
            Some(pem) => parse(&file, &pem, &trust_domain)?,
            None => {
                let key = KeyPair::generate()?;
                let (root, certificate) =
                    make_root(&trust_domain, &key, ca_ttl, SystemTime::now())?;
                store(&file, &key, &certificate)?;
                (key, root)
            }
        };
        let root = Mutex::new(root);
        let authority = Self { trust_domain, svid_ttl, ca_ttl, file, key, root, _lock: lock };
        authority.renew_if_due(SystemTime::now())?;
        Ok(authority)
    }

    pub(super) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// When an SVID that is made now should be replaced: at half of its life.
    pub(super) fn rotation(&self) -> Duration {
        self.svid_ttl / 2
    }

    /// How often a look at the certificate's renewal is needed, so that it always outlives the
    /// SVIDs under it by far.
    pub(super) fn renewal_check(&self) -> Duration {
        self.ca_ttl / 16
    }

    /// The authority's certificate, DER.
    pub(super) fn root(&self) -> Bytes {
        self.root.lock().unwrap_or_else(PoisonError::into_inner).der.clone()
    }

    /// Makes an SVID for `spiffe_id`, whose trust domain has been checked.
    ///
    /// Source of the profile: X.509-SVID §4 and Appendix A; verifiers that ask for more than it
    /// get `CA:FALSE` and both extended usages.
    pub(super) fn issue(&self, spiffe_id: &SpiffeId, now: SystemTime) -> Result<Svid, IssuerError> {
        let key = KeyPair::generate()?;
        let mut params = params(&self.trust_domain, "workload", spiffe_id.as_str())?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, self.svid_ttl);
        let signer = Signer::new(root_params(&self.trust_domain)?, &self.key);
        let certificate = params.signed_by(&key, &signer)?;
        Ok(Svid {
            certificate: Bytes::copy_from_slice(certificate.der()),
            key: Bytes::from(key.serialize_der()),
        })
    }

    /// Gives the authority a new certificate under its old key once half of the old one's life has
    /// passed, and says whether it did. SVIDs under the old one stay valid under the new one,
    /// because name and key are the same.
    pub(super) fn renew_if_due(&self, now: SystemTime) -> Result<bool, IssuerError> {
        let mut root = self.root.lock().unwrap_or_else(PoisonError::into_inner);
        if now < root.renew_at {
            return Ok(false);
        }
        let (renewed, certificate) = make_root(&self.trust_domain, &self.key, self.ca_ttl, now)?;
        store(&self.file, &self.key, &certificate)?;
        *root = renewed;
        Ok(true)
    }
}

/// Makes the authority's own certificate.
fn make_root(
    trust_domain: &TrustDomain,
    key: &KeyPair,
    ttl: Duration,
    now: SystemTime,
) -> Result<(Root, Certificate), IssuerError> {
    let mut params = root_params(trust_domain)?;
    set_validity(&mut params, now, ttl);
    // By default the number follows from the key; two certificates under one key need two.
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
    params.serial_number = Some(SerialNumber::from(nanos));
    let certificate = params.self_signed(key)?;
    let der = Bytes::copy_from_slice(certificate.der());
    Ok((Root { der, renew_at: now + ttl / 2 }, certificate))
}

/// Everything of the authority's certificate that never changes.
fn root_params(trust_domain: &TrustDomain) -> Result<CertificateParams, IssuerError> {
    let mut params = params(trust_domain, "authority", &trust_domain.uri())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params(
    trust_domain: &TrustDomain,
    role: &str,
    uri: &str,
) -> Result<CertificateParams, IssuerError> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Convoke");
    name.push(DnType::CommonName, common_name(trust_domain, role));
    params.distinguished_name = name;
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    Ok(params)
}

/// A name for people, cut where X.509 ends a common name: at 64 characters (RFC 5280, appendix A).
/// Nothing is decided by it.
fn common_name(trust_domain: &TrustDomain, role: &str) -> String {
    format!("{role} of {}", trust_domain.as_str()).chars().take(64).collect()
}

fn set_validity(params: &mut CertificateParams, now: SystemTime, ttl: Duration) {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + now + ttl;
}

/// Makes or checks the directory, and locks it.
fn open_dir(path: &Path, own_uid: u32) -> Result<File, IssuerError> {
    let failed = |action| move |source| file_error(action, path, source);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make directory"))?;
    let found = fs::metadata(path).map_err(failed("look at"))?;
    check_secret(path, &found, own_uid, 0o700)?;
    let lock_path = path.join(LOCK);
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(|source| file_error("open", &lock_path, source))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(IssuerError::DataDirInUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(file_error("lock", &lock_path, source)),
    }
}

/// Refuses what belongs to another user, or has a bit that `wanted` has not.
fn check_secret(
    path: &Path,
    found: &fs::Metadata,
    own: u32,
    wanted: u32,
) -> Result<(), IssuerError> {
    if found.uid() != own {
        return Err(IssuerError::ForeignOwner { path: path.to_owned(), found: found.uid(), own });
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o777 & !wanted != 0 {
        return Err(IssuerError::WideMode { path: path.to_owned(), found: mode, wanted });
    }
    Ok(())
}

/// The text of a secret file of ours; `None` if there is none.
fn read_secret(path: &Path, own_uid: u32) -> Result<Option<Vec<u8>>, IssuerError> {
    let failed = |source| file_error("read", path, source);
    // The path itself is looked at first: opening a pipe that lies there would wait for ever.
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => check_secret(path, &found, own_uid, 0o600)?,
        Ok(_) => {
            return Err(IssuerError::WrongKind { path: path.to_owned(), wanted: "regular file" });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    }
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
    Ok(Some(text))
}

/// Reads what [`store`] wrote.
fn parse(
    path: &Path,
    pem: &[u8],
    trust_domain: &TrustDomain,
) -> Result<(KeyPair, Root), IssuerError> {
    let bad = |reason: String| IssuerError::Authority { path: path.to_owned(), reason };
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|error| bad(error.to_string()))?;
    let key = KeyPair::try_from(&key).map_err(|error| bad(error.to_string()))?;
    let der = CertificateDer::from_pem_slice(pem).map_err(|error| bad(error.to_string()))?;
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&der)
        .map_err(|error| bad(error.to_string()))?;
    if certificate.public_key().raw != key.subject_public_key_info() {
        return Err(bad("the certificate is of another key".to_owned()));
    }
    let names = certificate.subject_alternative_name().map_err(|error| bad(error.to_string()))?;
    let uri = names.and_then(|names| match names.value.general_names.as_slice() {
        [GeneralName::URI(uri)] => Some(*uri),
        _ => None,
    });
    let found = uri.ok_or_else(|| bad("the certificate names no trust domain".to_owned()))?;
    if found != trust_domain.uri() {
        let (found, expected) = (found.to_owned(), trust_domain.uri());
        return Err(IssuerError::OtherTrustDomain { path: path.to_owned(), found, expected });
    }
    let validity = certificate.validity();
    let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
    let from = seconds(validity.not_before.timestamp());
    let half = seconds(validity.not_after.timestamp()).saturating_sub(from) / 2;
    let renew_at = SystemTime::UNIX_EPOCH + Duration::from_secs(from + half);
    Ok((key, Root { der: Bytes::copy_from_slice(&der), renew_at }))
}

/// Replaces the file as a whole: at no time, not even after a loss of power, is there half a key.
fn store(path: &Path, key: &KeyPair, certificate: &Certificate) -> Result<(), IssuerError> {
    let new = path.with_extension("pem.new");
    let failed = |source| file_error("write", path, source);
    // The directory is ours and locked, so what lies there is what is left of a crash.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
    file.write_all(key.serialize_pem().as_bytes()).map_err(failed)?;
    file.write_all(certificate.pem().as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

fn file_error(action: &'static str, path: &Path, source: io::Error) -> IssuerError {
    IssuerError::File { action, path: path.to_owned(), source }
}
