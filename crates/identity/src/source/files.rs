//! An identity that something else keeps in files: read at the start, and again when they change.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use convoke_model::{SpiffeId, TrustDomain};
use tokio::time::MissedTickBehavior;
use zeroize::Zeroizing;

use super::workload_api::chain;
use super::{Current, IdentityError};
use crate::look::Look;
use crate::material::Material;
use crate::regular_file;

/// How often the files are looked at. Looking is a few `stat`s.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Largest of the files, in bytes: a bundle of as many roots as we take has about a tenth.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// An identity that something else keeps in files, as PEM.
#[derive(Debug, Clone)]
pub struct FilesConfig {
    /// Who the agent is. It takes this SVID and no other.
    pub spiffe_id: SpiffeId,
    /// The SVID, leaf first, with its intermediates.
    pub certificate: PathBuf,
    /// Its key; a file that nobody but its owner may read, which is root or the own user.
    pub private_key: PathBuf,
    /// The roots of the own trust domain.
    pub bundle: PathBuf,
    /// The roots of other trust domains.
    pub federated: BTreeMap<TrustDomain, PathBuf>,
}

/// Which of the files; as errors name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Certificate,
    Key,
    Bundle,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Key => "private key",
            Self::Bundle => "bundle",
        }
    }
}

impl FilesConfig {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let own = [&self.certificate, &self.private_key, &self.bundle];
        own.into_iter().chain(self.federated.values()).map(PathBuf::as_path)
    }

    /// What the files look like from outside. A file that is not there is a look too.
    fn look(&self) -> Look {
        Look::at(self.paths())
    }
}

/// Reads the identity, and says what the files looked like just before.
pub(super) fn open(config: &FilesConfig) -> Result<(Material, Look), IdentityError> {
    let look = config.look();
    Ok((read(config)?, look))
}

fn read(config: &FilesConfig) -> Result<Material, IdentityError> {
    let certificate = read_file(Kind::Certificate, &config.certificate)?;
    let key = read_file(Kind::Key, &config.private_key)?;
    let own = (config.spiffe_id.trust_domain(), read_file(Kind::Bundle, &config.bundle)?);
    let mut bundles = vec![own];
    for (trust_domain, path) in &config.federated {
        bundles.push((trust_domain.clone(), read_file(Kind::Bundle, path)?));
    }
    let bundles: Vec<_> =
        bundles.iter().map(|(domain, roots)| (domain.clone(), roots.as_slice())).collect();
    let material = Material::from_pem(config.spiffe_id.clone(), &certificate, &key, &bundles)
        .map_err(|source| IdentityError::Files { wanted: config.spiffe_id.clone(), source })?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let not_after = material.not_after();
    if u128::from(not_after.0) < now.as_millis() {
        return Err(IdentityError::FileExpired { path: config.certificate.clone(), not_after });
    }
    Ok(material)
}

/// Reads a file whole, if nobody can have put it there who should not, and nobody can read it who
/// should not.
fn read_file(kind: Kind, path: &Path) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let what = kind.as_str();
    let unreadable = |source| IdentityError::FileUnreadable { what, path: path.to_owned(), source };
    let file = regular_file::open(path).map_err(unreadable)?;
    // Of the open file, so that none can be put in its place after the check.
    let found = file.metadata().map_err(unreadable)?;
    check_access(kind, path, found.mode() & 0o7777, found.uid(), own_uid())?;
    if found.len() > FILE_BYTES_MAX {
        let path = path.to_owned();
        return Err(IdentityError::FileTooLarge { what, path, max: FILE_BYTES_MAX });
    }
    // With room for all of it, and for the byte that shows that it has grown: a buffer that moves
    // would leave parts of the key behind.
    let room = usize::try_from(found.len()).map_err(|error| unreadable(io::Error::other(error)))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room + 1));
    file.take(found.len() + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > room {
        return Err(unreadable(io::Error::other("it grew while it was read")));
    }
    Ok(bytes)
}

/// The user whose rights this process has.
fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn check_access(
    kind: Kind,
    path: &Path,
    mode: u32,
    uid: u32,
    own: u32,
) -> Result<(), IdentityError> {
    let (path, what) = (path.to_owned(), kind.as_str());
    match kind {
        Kind::Key if uid != own && uid != 0 => Err(IdentityError::KeyOwner { path, uid, own }),
        // Bits beside reading and writing by the owner, execution and set-user-id among them.
        Kind::Key if mode & !0o600 != 0 => Err(IdentityError::KeyMode { path, mode }),
        _ if mode & 0o002 != 0 => Err(IdentityError::WorldWritable { what, path, mode }),
        _ => Ok(()),
    }
}

/// Reads the files again whenever they have changed, and publishes what they hold. Ends only with
/// the task it runs on.
///
/// Writers seldom replace several files as one, so what cannot be used may just be half of a
/// change: the held identity stays, and the files are read at every look until they can be used.
pub(super) async fn watch(config: FilesConfig, mut seen: Look, current: Current) {
    let config = Arc::new(config);
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trouble = Trouble::default();
    loop {
        tick.tick().await;
        let (at, before, failing) = (Arc::clone(&config), seen.clone(), trouble.is_some());
        // The files may lie on a network.
        let looked = tokio::task::spawn_blocking(move || {
            let look = at.look();
            let again = failing || look != before || !look.is_settled(SystemTime::now());
            (again.then(|| read(&at)), look)
        });
        let Ok((Some(result), look)) = looked.await else { continue };
        seen = look;
        match result {
            Ok(material) => {
                trouble.over(&config);
                take(&config, &current, material);
            }
            Err(error) => trouble.say(&config, &error, &current),
        }
    }
}

fn take(config: &FilesConfig, current: &Current, material: Material) {
    // Reading once more than needed is harmless, and swapping is not: it ends every connection
    // that clients keep.
    if current.load().is_same_as(&material) {
        return;
    }
    let not_after = material.not_after();
    match current.0.publish(material) {
        Ok(revision) => tracing::info!(
            spiffe_id = %config.spiffe_id, revision, %not_after, "identity files were read again"
        ),
        Err(error) => {
            current.failed();
            tracing::error!(%error, "identity was not rotated");
        }
    }
}

/// Why the files cannot be used at the moment, so that it is said once and not at every look.
#[derive(Default)]
struct Trouble(Option<String>);

impl Trouble {
    fn is_some(&self) -> bool {
        self.0.is_some()
    }

    fn say(&mut self, config: &FilesConfig, error: &IdentityError, current: &Current) {
        let text = chain(error);
        if self.0.as_ref() != Some(&text) {
            current.failed();
            let valid_until = current.load().not_after();
            tracing::warn!(
                spiffe_id = %config.spiffe_id, %valid_until, error = text,
                "identity files cannot be used; the identity that is held stays in use until it \
                 expires"
            );
            self.0 = Some(text);
        }
    }

    fn over(&mut self, config: &FilesConfig) {
        if self.0.take().is_some() {
            tracing::info!(spiffe_id = %config.spiffe_id, "identity files can be used again");
        }
    }
}

#[cfg(test)]
mod tests;
