//! The registration entries: which processes get which identities, kept on disk.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use convoke_model::{SpiffeId, TrustDomain};
use serde::{Deserialize, Serialize};

use super::attestation::Workload;
use super::data_dir::DataDir;
use super::error::IssuerError;
use super::selector::Selector;

/// The file of the entries.
const FILE: &str = "entries.json";

/// The file whose being there ends that processes enrol themselves, whatever becomes of the entries:
/// without it, losing them would open again what the first one has closed for good.
const MARK: &str = "enrolling-ended";

/// What the mark says to who finds it.
const MARK_TEXT: &[u8] = b"There have been registration entries, so processes do not enrol \
    themselves.\nRemove this file and entries.json together to allow it again.\n";

/// The version of its format that is written, and the only one that there has been.
const VERSION: u32 = 1;

/// Most entries of an issuer.
const ENTRIES_MAX: usize = 1024;

/// Most selectors of an entry.
pub(super) const SELECTORS_MAX: usize = 8;

/// Largest file that is read, in bytes. It holds as many of the largest entries as there may be.
const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Which processes get an identity, and for how long at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number; a number is never given twice.
    pub id: u64,
    /// What it says.
    pub registration: Registration,
}

/// What adding an entry has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The entry.
    pub entry: Entry,
    /// If the entry is the first: how many running processes had enrolled themselves. Their
    /// certificates are not renewed any more, unless an entry means them.
    pub enrolling_ended: Option<u64>,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The identity that is given.
    pub spiffe_id: SpiffeId,
    /// What has to be true of a process, all of it; at least one, in order.
    pub selectors: Vec<Selector>,
    /// How long an SVID is valid, in whole seconds; the issuer's own setting without it.
    pub ttl: Option<Duration>,
}

/// Why an entry is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum EntryError {
    #[error("it issues ids of `{own}` only")]
    TrustDomain { own: TrustDomain },
    #[error("an entry needs one to {SELECTORS_MAX} different selectors")]
    Selectors,
    #[error("the ttl has to be {min} to {max} whole seconds")]
    Ttl { min: u64, max: u64 },
    #[error("entry {id} says the same already")]
    Exists { id: u64 },
    #[error("there is no entry {id}")]
    NotFound { id: u64 },
    #[error("there are {ENTRIES_MAX} entries already; remove one that is not needed")]
    Full,
    #[error("the entry could not be kept")]
    Store(#[source] IssuerError),
}

/// All entries of an issuer.
#[derive(Debug)]
pub(super) struct Entries {
    dir: Arc<DataDir>,
    trust_domain: TrustDomain,
    current: ArcSwap<State>,
    /// Held while the entries are replaced.
    changing: Mutex<()>,
}

#[derive(Debug, Clone)]
struct State {
    /// Whether processes may enrol themselves, because there has never been an entry.
    never_any: bool,
    next_id: u64,
    entries: Vec<Entry>,
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    trust_domain: String,
    next_id: u64,
    entries: Vec<EntryDocument>,
}

/// An entry in the file and on the admin socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryDocument {
    id: u64,
    spiffe_id: String,
    selectors: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<u64>,
}

/// What adding an entry has done, on the admin socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AddedDocument {
    pub(super) entry: EntryDocument,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) enrolling_ended: Option<u64>,
}

/// What an entry says, on the admin socket.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegistrationDocument {
    spiffe_id: String,
    selectors: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<u64>,
}

/// The limits of an entry's life.
#[derive(Debug, Clone, Copy)]
pub(super) struct TtlLimits {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl Entries {
    /// Reads the entries; there are none if there is no file.
    pub(super) fn open(dir: Arc<DataDir>, trust_domain: TrustDomain) -> Result<Self, IssuerError> {
        // Also of an issuer that did not make the mark yet. It is made before the file is read:
        // one that cannot be is moved away, and tells of entries all the same.
        if dir.has(FILE)? && !dir.has(MARK)? {
            dir.replace(MARK, MARK_TEXT)?;
        }
        let state = match dir.read(FILE, FILE_BYTES_MAX)? {
            Some(json) => State::parse(&json, &trust_domain)
                .map_err(|reason| IssuerError::Entries { path: dir.file(FILE), reason })?,
            None => {
                let never_any = !dir.has(MARK)?;
                if !never_any {
                    tracing::warn!(
                        path = %dir.file(FILE).display(),
                        "the registration entries are gone; no process gets an identity before \
                         one is added, and none may enrol itself"
                    );
                }
                State { never_any, next_id: 1, entries: Vec::new() }
            }
        };
        let (current, changing) = (ArcSwap::from_pointee(state), Mutex::new(()));
        Ok(Self { dir, trust_domain, current, changing })
    }

    /// Whether there has never been an entry. Removing the last one does not bring this back: who
    /// has begun to say what processes get must not find that they help themselves again. Neither
    /// does losing the file.
    pub(super) fn never_any(&self) -> bool {
        self.current.load().never_any
    }

    /// All entries, by their numbers.
    pub(super) fn all(&self) -> Vec<Entry> {
        self.current.load().entries.clone()
    }

    /// What the entries that mean `workload` give it, by their numbers.
    pub(super) fn of(&self, workload: &Workload) -> Vec<(SpiffeId, Option<Duration>)> {
        let current = self.current.load();
        let meant = current
            .entries
            .iter()
            .map(|entry| &entry.registration)
            .filter(|entry| entry.selectors.iter().all(|selector| workload.has(selector)));
        meant.map(|entry| (entry.spiffe_id.clone(), entry.ttl)).collect()
    }

    /// Adds an entry, and returns when it is on the disk; with whether there has never been one
    /// before.
    pub(super) fn add(
        &self,
        mut registration: Registration,
        limits: TtlLimits,
    ) -> Result<(Entry, bool), EntryError> {
        if registration.spiffe_id.trust_domain_str() != self.trust_domain.as_str() {
            return Err(EntryError::TrustDomain { own: self.trust_domain.clone() });
        }
        let selectors = &mut registration.selectors;
        let asked = selectors.len();
        selectors.sort_unstable();
        selectors.dedup();
        if !(1..=SELECTORS_MAX).contains(&asked) || selectors.len() != asked {
            return Err(EntryError::Selectors);
        }
        let TtlLimits { min, max } = limits;
        if registration.ttl.is_some_and(|ttl| !(min..=max).contains(&ttl) || ttl.subsec_nanos() > 0)
        {
            return Err(EntryError::Ttl { min: min.as_secs(), max: max.as_secs() });
        }
        self.change(|state| {
            let same = |entry: &&Entry| {
                (&entry.registration.spiffe_id, &entry.registration.selectors)
                    == (&registration.spiffe_id, &registration.selectors)
            };
            if let Some(entry) = state.entries.iter().find(same) {
                return Err(EntryError::Exists { id: entry.id });
            }
            if state.entries.len() >= ENTRIES_MAX {
                return Err(EntryError::Full);
            }
            let entry = Entry { id: state.next_id, registration };
            state.next_id += 1;
            state.entries.push(entry.clone());
            Ok((entry, state.never_any))
        })
    }

    /// Removes an entry, and returns it when that is on the disk.
    pub(super) fn remove(&self, id: u64) -> Result<Entry, EntryError> {
        self.change(|state| {
            let at = state.entries.iter().position(|entry| entry.id == id);
            Ok(state.entries.remove(at.ok_or(EntryError::NotFound { id })?))
        })
    }

    /// Puts a changed state in place once it is on the disk.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, EntryError>,
    ) -> Result<T, EntryError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = State::clone(&self.current.load());
        let changed = change(&mut state)?;
        let document = state.document(&self.trust_domain);
        // Numbers and strings always make JSON.
        let json = serde_json::to_vec_pretty(&document).map_err(|error| {
            let (path, reason) = (self.dir.file(FILE), error.to_string());
            EntryError::Store(IssuerError::Entries { path, reason })
        })?;
        if state.never_any {
            // Before the entry: a crash in between ends enrolling too early, and never too late.
            self.dir.replace(MARK, MARK_TEXT).map_err(EntryError::Store)?;
            state.never_any = false;
        }
        self.dir.replace(FILE, &json).map_err(EntryError::Store)?;
        self.current.store(Arc::new(state));
        Ok(changed)
    }
}

impl State {
    fn document(&self, trust_domain: &TrustDomain) -> Document {
        Document {
            version: VERSION,
            trust_domain: trust_domain.as_str().to_owned(),
            next_id: self.next_id,
            entries: self.entries.iter().map(EntryDocument::from).collect(),
        }
    }

    fn parse(json: &[u8], trust_domain: &TrustDomain) -> Result<Self, String> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if head.version != VERSION {
            let found = head.version;
            return Err(format!("it is of version {found}, and this program reads {VERSION}"));
        }
        let document: Document = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if document.trust_domain != trust_domain.as_str() {
            return Err(format!("it is of trust domain `{}`", document.trust_domain));
        }
        let mut entries = Vec::with_capacity(document.entries.len().min(ENTRIES_MAX));
        let mut last = 0;
        for entry in document.entries {
            let id = entry.id;
            let entry = Entry::try_from(entry).map_err(|error| format!("entry {id}: {error}"))?;
            let own = entry.registration.spiffe_id.trust_domain_str() == trust_domain.as_str();
            // Without a selector, an entry would mean every process.
            if id <= last || !own || entry.registration.selectors.is_empty() {
                return Err(format!("entry {id} is out of order, of another domain or empty"));
            }
            last = id;
            entries.push(entry);
        }
        if document.next_id <= last || document.next_id == 0 || entries.len() > ENTRIES_MAX {
            return Err("its numbers contradict each other".to_owned());
        }
        Ok(Self { never_any: false, next_id: document.next_id, entries })
    }
}

impl From<&Entry> for EntryDocument {
    fn from(entry: &Entry) -> Self {
        let RegistrationDocument { spiffe_id, selectors, ttl_seconds } =
            (&entry.registration).into();
        Self { id: entry.id, spiffe_id, selectors, ttl_seconds }
    }
}

impl TryFrom<EntryDocument> for Entry {
    type Error = String;

    fn try_from(document: EntryDocument) -> Result<Self, String> {
        let EntryDocument { id, spiffe_id, selectors, ttl_seconds } = document;
        let registration = RegistrationDocument { spiffe_id, selectors, ttl_seconds }.try_into()?;
        Ok(Self { id, registration })
    }
}

impl From<&Registration> for RegistrationDocument {
    fn from(registration: &Registration) -> Self {
        Self {
            spiffe_id: registration.spiffe_id.as_str().to_owned(),
            selectors: registration.selectors.iter().map(ToString::to_string).collect(),
            ttl_seconds: registration.ttl.map(|ttl| ttl.as_secs()),
        }
    }
}

impl TryFrom<RegistrationDocument> for Registration {
    type Error = String;

    fn try_from(document: RegistrationDocument) -> Result<Self, String> {
        let spiffe_id = SpiffeId::parse(&document.spiffe_id)
            .map_err(|error| format!("`spiffe_id` is not a SPIFFE ID: {error}"))?;
        let selectors = document.selectors.iter().map(|text| text.parse::<Selector>());
        let selectors = selectors.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        Ok(Self { spiffe_id, selectors, ttl: document.ttl_seconds.map(Duration::from_secs) })
    }
}

#[cfg(test)]
mod tests;
