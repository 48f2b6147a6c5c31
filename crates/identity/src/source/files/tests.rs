#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use rustls_pki_types::CertificateDer;
use tempfile::TempDir;

use super::*;
use crate::look::SETTLED_AFTER;
use crate::material::MaterialError;
use crate::source::IdentitySource;
use crate::testing::{Authority, Leaf, pem, set_validity};

const AGENT: &str = "spiffe://example.org/agent";

/// The files of an identity, in a directory that goes with them.
struct Files {
    dir: TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let files = Self { dir: TempDir::new().unwrap(), authority: Authority::new("example.org") };
        files.write_leaf(&files.authority.leaf(AGENT, |_| {}));
        files.write_bundle("bundle.pem", &files.authority.certificate);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> FilesConfig {
        FilesConfig {
            spiffe_id: SpiffeId::parse(AGENT).unwrap(),
            certificate: self.path("svid.pem"),
            private_key: self.path("key.pem"),
            bundle: self.path("bundle.pem"),
            federated: BTreeMap::new(),
        }
    }

    fn write_leaf(&self, leaf: &Leaf) {
        self.write_certificate(leaf);
        self.write_key(leaf);
    }

    fn write_certificate(&self, leaf: &Leaf) {
        self.write("svid.pem", &pem("CERTIFICATE", &leaf.certificate), 0o644);
    }

    fn write_key(&self, leaf: &Leaf) {
        self.write("key.pem", &pem("PRIVATE KEY", leaf.key.secret_der()), 0o600);
    }

    fn write_bundle(&self, name: &str, root: &CertificateDer<'_>) {
        self.write(name, &pem("CERTIFICATE", root), 0o644);
    }

    /// As careful writers do: a new file takes the place of the old one.
    fn write(&self, name: &str, text: &str, mode: u32) {
        let new = self.path("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(mode)).unwrap();
        fs::rename(new, self.path(name)).unwrap();
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }
}

fn refused(files: &Files) -> IdentityError {
    open(&files.config()).map(drop).unwrap_err()
}

#[test]
fn what_the_files_hold_is_the_identity() {
    let files = Files::new();
    let partner = Authority::new("partner.org");
    files.write_bundle("partner.pem", &partner.certificate);
    let mut config = files.config();
    config.federated.insert(partner.trust_domain, files.path("partner.pem"));
    let (material, _) = open(&config).unwrap();
    assert_eq!(material.spiffe_id().as_str(), AGENT);
    let domains: Vec<_> = material.trust_domains().map(|domain| domain.as_str()).collect();
    assert_eq!(domains, ["example.org", "partner.org"]);
}

#[test]
fn a_key_is_its_owners_alone() {
    for (mode, uid, expected) in [
        (0o600, 1000, "ok"),
        (0o400, 1000, "ok"),
        (0o400, 0, "ok"),
        (0o640, 1000, "mode"),
        (0o604, 1000, "mode"),
        (0o620, 1000, "mode"),
        (0o602, 1000, "mode"),
        (0o700, 1000, "mode"),
        (0o4600, 1000, "mode"),
        (0o600, 1001, "owner"),
    ] {
        let found = match check_access(Kind::Key, Path::new("/k"), mode, uid, 1000) {
            Ok(()) => "ok",
            Err(IdentityError::KeyMode { .. }) => "mode",
            Err(IdentityError::KeyOwner { .. }) => "owner",
            Err(other) => panic!("{other}"),
        };
        assert_eq!(found, expected, "{mode:o} of {uid}");
    }
    let files = Files::new();
    files.mode("key.pem", 0o644);
    let error = refused(&files).to_string();
    assert!(error.contains("chmod 600"), "{error}");
    assert!(error.contains("key.pem"), "{error}");
}

#[test]
fn nobody_else_may_write_what_is_trusted() {
    for name in ["bundle.pem", "svid.pem"] {
        let files = Files::new();
        files.mode(name, 0o646);
        let error = refused(&files);
        assert!(matches!(&error, IdentityError::WorldWritable { .. }), "{error}");
        assert!(error.to_string().contains("chmod o-w"), "{error}");
    }
}

#[test]
fn each_reason_for_no_identity_has_its_name() {
    type Spoil = fn(&Files);
    type Expected = fn(&IdentityError) -> bool;
    let cases: [(&str, Spoil, Expected); 11] = [
        (
            "no bundle",
            |f| fs::remove_file(f.path("bundle.pem")).unwrap(),
            |e| matches!(e, IdentityError::FileUnreadable { what: "bundle", .. }),
        ),
        (
            "no key",
            |f| fs::remove_file(f.path("key.pem")).unwrap(),
            |e| matches!(e, IdentityError::FileUnreadable { what: "private key", .. }),
        ),
        (
            "empty bundle",
            |f| f.write("bundle.pem", "", 0o644),
            |e| matches!(e, IdentityError::Files { source: MaterialError::NoOwnRoot(_), .. }),
        ),
        (
            "empty certificate",
            |f| f.write("svid.pem", "", 0o644),
            |e| {
                matches!(
                    e,
                    IdentityError::Files { source: MaterialError::NoCertificate { .. }, .. }
                )
            },
        ),
        (
            "half a bundle",
            |f| f.write("bundle.pem", "-----BEGIN CERTIFICATE-----\nAAAA", 0o644),
            |e| matches!(e, IdentityError::Files { source: MaterialError::Pem { .. }, .. }),
        ),
        (
            "half a key",
            |f| f.write("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA", 0o600),
            |e| matches!(e, IdentityError::Files { source: MaterialError::Pem { .. }, .. }),
        ),
        (
            "another's key",
            |f| f.write_key(&f.authority.leaf(AGENT, |_| {})),
            |e| matches!(e, IdentityError::Files { source: MaterialError::Key { .. }, .. }),
        ),
        (
            "another's certificate",
            |f| f.write_leaf(&f.authority.leaf("spiffe://example.org/other", |_| {})),
            |e| matches!(e, IdentityError::Files { source: MaterialError::WrongId { .. }, .. }),
        ),
        (
            "expired",
            |f| f.write_leaf(&f.authority.leaf(AGENT, |p| set_validity(p, -200, -100))),
            |e| matches!(e, IdentityError::FileExpired { .. }),
        ),
        (
            "a directory",
            |f| {
                fs::remove_file(f.path("svid.pem")).unwrap();
                fs::create_dir(f.path("svid.pem")).unwrap();
            },
            |e| matches!(e, IdentityError::FileUnreadable { what: "certificate", .. }),
        ),
        (
            "too large",
            |f| f.write("bundle.pem", &"x".repeat(1024 * 1024 + 1), 0o644),
            |e| matches!(e, IdentityError::FileTooLarge { what: "bundle", .. }),
        ),
    ];
    for (what, spoil, expected) in cases {
        let files = Files::new();
        spoil(&files);
        let error = refused(&files);
        assert!(expected(&error), "{what}: {error:?}");
    }
}

#[test]
fn a_file_is_settled_when_no_change_can_hide() {
    let files = Files::new();
    let look = files.config().look();
    let now = SystemTime::now();
    assert!(!look.is_settled(now));
    assert!(look.is_settled(now + SETTLED_AFTER));
    assert_eq!(look, files.config().look());
    files.mode("svid.pem", 0o600);
    assert_ne!(look, files.config().look());
}

#[tokio::test(start_paused = true)]
async fn changes_are_found_and_half_of_one_changes_nothing() {
    let files = Files::new();
    let source = IdentitySource::from_files(files.config()).unwrap();
    let mut changes = source.changes();
    let first = source.current();
    changes.mark_unchanged();

    // The certificate comes before its key, as writers do it, and then nothing for a while.
    let next = files.authority.leaf(AGENT, |_| {});
    files.write_certificate(&next);
    assert!(tokio::time::timeout(LOOK_EVERY * 5, changes.changed()).await.is_err());
    assert_eq!(source.current().revision(), first.revision());
    // Five looks at the same trouble are one failure.
    assert_eq!(source.failures(), 1);

    files.write_key(&next);
    changes.changed().await.unwrap();
    assert_eq!(source.current().chain(), [next.certificate]);

    // Nothing is swapped for files that only look changed.
    let text = fs::read_to_string(files.path("svid.pem")).unwrap();
    files.write("svid.pem", &text, 0o644);
    assert!(tokio::time::timeout(LOOK_EVERY * 5, changes.changed()).await.is_err());

    // Files that go away leave what is held.
    fs::remove_file(files.path("bundle.pem")).unwrap();
    assert!(tokio::time::timeout(LOOK_EVERY * 5, changes.changed()).await.is_err());
    assert_eq!(source.failures(), 2);
    let root = Authority::new("example.org");
    let last = root.leaf(AGENT, |_| {});
    files.write_leaf(&last);
    files.write_bundle("bundle.pem", &root.certificate);
    changes.changed().await.unwrap();
    assert_eq!(source.current().chain(), [last.certificate]);
}
