//! Certificates put together byte by byte, so that every mistake can be made in them.

use std::fs;
use std::path::PathBuf;

use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};

/// Where the corpus lies.
pub(super) fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates"))
}

/// A key of the corpus that signs. Ed25519, because its signatures are the same each time.
pub(super) struct Signer {
    pair: KeyPair,
    /// The name of who holds it.
    pub(super) name: &'static str,
}

impl Signer {
    pub(super) fn read(file: &str, name: &'static str) -> Self {
        let path = directory().join("keys").join(format!("{file}.pem"));
        Self { pair: KeyPair::from_pem(&fs::read_to_string(path).unwrap()).unwrap(), name }
    }

    pub(super) fn public(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.pair.sign(bytes).unwrap()
    }
}

/// The `SubjectPublicKeyInfo` of a key of the corpus.
pub(super) fn public_key(file: &str) -> Vec<u8> {
    let path = directory().join("keys").join(format!("{file}.pub.pem"));
    SubjectPublicKeyInfoDer::from_pem_file(path).unwrap().to_vec()
}

/// One certificate before it is signed; every part of it can be changed.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) version: Option<u8>,
    pub(super) serial: Vec<u8>,
    pub(super) algorithm: Vec<u8>,
    /// The algorithm that stands outside of what is signed.
    pub(super) outer_algorithm: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    pub(super) not_before: Vec<u8>,
    pub(super) not_after: Vec<u8>,
    pub(super) subject: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) extensions: Vec<Extension>,
}

#[derive(Clone)]
pub(super) struct Extension {
    pub(super) id: &'static [u8],
    pub(super) critical: bool,
    pub(super) value: Vec<u8>,
}

// Object identifiers, as the bytes that they are encoded to.
pub(super) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
pub(super) const SHA1_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05];
pub(super) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
pub(super) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
pub(super) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
pub(super) const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];
const UNKNOWN: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x01, 0x01];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
pub(super) const SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
pub(super) const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
pub(super) const CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];
pub(super) const EMAIL: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x04];
pub(super) const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];

// Bits of the key usage; the first is the highest of the first byte.
pub(super) const DIGITAL_SIGNATURE: u8 = 0x80;
pub(super) const KEY_ENCIPHERMENT: u8 = 0x20;
pub(super) const KEY_AGREEMENT: u8 = 0x08;
pub(super) const CERT_SIGN: u8 = 0x04;
pub(super) const CRL_SIGN: u8 = 0x02;

/// A value with its tag and its length.
pub(super) fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match value.len() {
        short @ 0..=0x7f => out.push(u8::try_from(short).unwrap()),
        long => {
            let bytes = long.to_be_bytes();
            let bytes = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap()..];
            out.push(0x80 | u8::try_from(bytes.len()).unwrap());
            out.extend(bytes);
        }
    }
    out.extend(value);
    out
}

pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub(super) fn algorithm(id: &[u8]) -> Vec<u8> {
    // RSA's algorithms have a parameter that is nothing, Ed25519 has none.
    if id == ED25519 { sequence(&[&tlv(6, id)]) } else { sequence(&[&tlv(6, id), &tlv(5, &[])]) }
}

/// A distinguished name with a common name, or with nothing.
pub(super) fn name(common_name: &str) -> Vec<u8> {
    if common_name.is_empty() {
        return sequence(&[]);
    }
    let attribute = sequence(&[&tlv(6, COMMON_NAME), &tlv(0x0c, common_name.as_bytes())]);
    sequence(&[&tlv(0x31, &attribute)])
}

/// A year's first instant, in the form that its century wants.
pub(super) fn year(year: u16) -> Vec<u8> {
    if year < 2050 {
        tlv(0x17, format!("{:02}0101000000Z", year % 100).as_bytes())
    } else {
        tlv(0x18, format!("{year}0101000000Z").as_bytes())
    }
}

/// One of the names of a certificate.
pub(super) fn uri(text: impl AsRef<[u8]>) -> Vec<u8> {
    tlv(0x86, text.as_ref())
}

pub(super) fn dns(text: &str) -> Vec<u8> {
    tlv(0x82, text.as_bytes())
}

pub(super) fn email(text: &str) -> Vec<u8> {
    tlv(0x81, text.as_bytes())
}

pub(super) fn names(critical: bool, names: &[Vec<u8>]) -> Extension {
    Extension { id: ALTERNATIVE_NAME, critical, value: tlv(0x30, &names.concat()) }
}

pub(super) fn constraints(authority: bool, path_length: Option<u8>) -> Extension {
    let mut value = Vec::new();
    if authority {
        value.extend(tlv(1, &[0xff]));
    }
    if let Some(length) = path_length {
        value.extend(tlv(2, &[length]));
    }
    Extension { id: BASIC_CONSTRAINTS, critical: true, value: tlv(0x30, &value) }
}

pub(super) fn usage(bits: u8) -> Extension {
    let unused = u8::try_from(bits.trailing_zeros()).unwrap();
    let value = if bits == 0 { vec![0] } else { vec![unused, bits] };
    Extension { id: KEY_USAGE, critical: true, value: tlv(3, &value) }
}

pub(super) fn extended(purposes: &[&[u8]]) -> Extension {
    let purposes: Vec<_> = purposes.iter().flat_map(|id| tlv(6, id)).collect();
    Extension { id: EXTENDED_KEY_USAGE, critical: false, value: tlv(0x30, &purposes) }
}

pub(super) fn unknown(critical: bool) -> Extension {
    Extension { id: UNKNOWN, critical, value: tlv(5, &[]) }
}

/// Constraints on the hosts of URIs that certificates below may have.
pub(super) fn name_constraints(permitted: &[&str], excluded: &[&str]) -> Extension {
    let subtrees = |tag: u8, hosts: &[&str]| -> Vec<u8> {
        let hosts: Vec<_> = hosts.iter().flat_map(|host| sequence(&[&uri(host)])).collect();
        if hosts.is_empty() { hosts } else { tlv(tag, &hosts) }
    };
    let value = [subtrees(0xa0, permitted), subtrees(0xa1, excluded)].concat();
    Extension { id: NAME_CONSTRAINTS, critical: true, value: tlv(0x30, &value) }
}

impl Extension {
    fn encode(&self) -> Vec<u8> {
        let critical = if self.critical { tlv(1, &[0xff]) } else { Vec::new() };
        sequence(&[&tlv(6, self.id), &critical, &tlv(4, &self.value)])
    }
}

impl Draft {
    /// A good SVID with the key that most of the corpus has.
    pub(super) fn leaf(id: impl AsRef<[u8]>, issuer: &Signer) -> Self {
        Self {
            version: Some(2),
            serial: vec![1],
            algorithm: algorithm(ED25519),
            outer_algorithm: algorithm(ED25519),
            issuer: name(issuer.name),
            not_before: year(2030),
            not_after: year(2032),
            subject: name("agent"),
            key: public_key("p256"),
            extensions: vec![
                constraints(false, None),
                usage(DIGITAL_SIGNATURE),
                extended(&[SERVER_AUTH, CLIENT_AUTH]),
                names(false, &[uri(id)]),
            ],
        }
    }

    /// An authority that holds `key`, signed by `issuer`; without a SPIFFE ID of its own.
    pub(super) fn authority(key: &Signer, issuer: &Signer) -> Self {
        Self {
            subject: name(key.name),
            key: key.public(),
            extensions: vec![constraints(true, None), usage(CERT_SIGN | CRL_SIGN)],
            ..Self::leaf("", issuer)
        }
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Puts `extension` where the one of its kind is.
    pub(super) fn replace(self, extension: Extension) -> Self {
        let id = extension.id;
        self.without(id).add(extension)
    }

    pub(super) fn add(self, extension: Extension) -> Self {
        self.with(|draft| draft.extensions.push(extension))
    }

    pub(super) fn without(self, id: &[u8]) -> Self {
        self.with(|draft| draft.extensions.retain(|extension| extension.id != id))
    }

    /// What is signed.
    pub(super) fn body(&self) -> Vec<u8> {
        let version = self.version.map(|version| tlv(0xa0, &tlv(2, &[version])));
        let extensions: Vec<_> = self.extensions.iter().flat_map(Extension::encode).collect();
        let extensions =
            if extensions.is_empty() { Vec::new() } else { tlv(0xa3, &tlv(0x30, &extensions)) };
        sequence(&[
            &version.unwrap_or_default(),
            &tlv(2, &self.serial),
            &self.algorithm,
            &self.issuer,
            &sequence(&[&self.not_before, &self.not_after]),
            &self.subject,
            &self.key,
            &extensions,
        ])
    }

    pub(super) fn sign(&self, issuer: &Signer) -> CertificateDer<'static> {
        let body = self.body();
        let signature = issuer.sign(&body);
        self.assemble(&body, &signature)
    }

    /// A certificate of parts that need not fit.
    pub(super) fn assemble(&self, body: &[u8], signature: &[u8]) -> CertificateDer<'static> {
        let signature = [&[0], signature].concat();
        sequence(&[body, &self.outer_algorithm, &tlv(3, &signature)]).into()
    }
}
