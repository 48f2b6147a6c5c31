//! The corpus: each certificate with the verdict that it has to get.

use rustls_pki_types::CertificateDer;

use super::der::*;

/// The ID of the good certificates.
pub(super) const AGENT: &str = "spiffe://example.org/agent";

/// Where `other.org` has a good certificate.
pub(super) const FOREIGN: &str = "spiffe://other.org/agent";

/// When everything is looked at, in seconds of Unix time: in the middle of 2030.
pub(super) const NOW: u64 = 1_909_000_000;

/// The verdict on what is good. The others are those of [`super::verdict`].
pub(super) const ACCEPTED: &str = "accepted";

/// One chain, leaf first, with what has to be said of it.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// As a caller's and as a callee's.
    pub(super) expected: [&'static str; 2],
}

/// The keys that sign.
pub(super) struct Keys {
    /// The root of `example.org`.
    pub(super) root: Signer,
    /// The root of `other.org`, which is trusted too.
    other: Signer,
    intermediate: Signer,
    second: Signer,
    /// Another authority that has the root's name.
    impostor: Signer,
    /// A root that is trusted and has expired.
    expired: Signer,
}

impl Keys {
    pub(super) fn read() -> Self {
        Self {
            root: Signer::read("root", "root of example.org"),
            other: Signer::read("other", "root of other.org"),
            intermediate: Signer::read("intermediate", "intermediate"),
            second: Signer::read("second", "second intermediate"),
            impostor: Signer::read("second", "root of example.org"),
            expired: Signer::read("intermediate", "expired root"),
        }
    }
}

/// The roots that are trusted, with their trust domains.
pub(super) fn roots(keys: &Keys) -> Vec<(&'static str, CertificateDer<'static>)> {
    let Keys { root, other, expired, .. } = keys;
    let gone = Draft::authority(expired, expired).with(|draft| draft.not_after = year(2030));
    vec![
        ("example.org", Draft::authority(root, root).sign(root)),
        ("example.org", gone.sign(expired)),
        ("other.org", Draft::authority(other, other).sign(other)),
    ]
}

struct Corpus<'a> {
    keys: &'a Keys,
    cases: Vec<Case>,
}

impl Corpus<'_> {
    fn chain(
        &mut self,
        name: impl Into<String>,
        expected: &'static str,
        chain: Vec<CertificateDer<'static>>,
    ) {
        self.cases.push(Case { name: name.into(), chain, expected: [expected, expected] });
    }

    /// A leaf that the root has signed, changed.
    fn leaf(
        &mut self,
        name: impl Into<String>,
        expected: &'static str,
        change: impl FnOnce(Draft) -> Draft,
    ) {
        let root = &self.keys.root;
        let leaf = change(Draft::leaf(AGENT, root)).sign(root);
        self.chain(name, expected, vec![leaf]);
    }

    /// A leaf under an intermediate that the root has signed, changed.
    fn intermediate(
        &mut self,
        name: &str,
        expected: &'static str,
        change: impl FnOnce(Draft) -> Draft,
    ) {
        let (root, intermediate) = (&self.keys.root, &self.keys.intermediate);
        let leaf = Draft::leaf(AGENT, intermediate).sign(intermediate);
        let above = change(Draft::authority(intermediate, root)).sign(root);
        self.chain(name, expected, vec![leaf, above]);
    }

    fn id(&mut self, name: &str, expected: &'static str, id: impl AsRef<[u8]>) {
        self.leaf(name, expected, |draft| draft.replace(names(false, &[uri(id)])));
    }
}

/// All of it, in a fixed order.
pub(super) fn cases(keys: &Keys) -> Vec<Case> {
    let mut corpus = Corpus { keys, cases: Vec::new() };
    good(&mut corpus);
    ids(&mut corpus);
    uri_names(&mut corpus);
    extensions(&mut corpus);
    keys_and_times(&mut corpus);
    chains(&mut corpus);
    encodings(&mut corpus);
    corpus.cases
}

fn good(corpus: &mut Corpus<'_>) {
    corpus.leaf("good", ACCEPTED, |leaf| leaf);
    for key in ["p384", "p521", "rsa2048"] {
        corpus.leaf(format!("good-{key}"), ACCEPTED, |leaf| {
            leaf.with(|leaf| leaf.key = public_key(key))
        });
    }
    let ed25519 = corpus.keys.second.public();
    corpus.leaf("good-ed25519", ACCEPTED, |leaf| leaf.with(|leaf| leaf.key = ed25519));
    corpus.leaf("good-other-names", ACCEPTED, |leaf| {
        let address = tlv(0x87, &[127, 0, 0, 1]);
        leaf.replace(names(false, &[dns("agent"), uri(AGENT), email("a@example.org"), address]))
    });
    corpus.leaf("good-more-usage", ACCEPTED, |leaf| {
        leaf.replace(usage(DIGITAL_SIGNATURE | KEY_ENCIPHERMENT | KEY_AGREEMENT))
    });
    corpus.leaf("good-more-purposes", ACCEPTED, |leaf| {
        leaf.replace(extended(&[EMAIL, CLIENT_AUTH, SERVER_AUTH]))
    });
    corpus.leaf("good-nothing-critical", ACCEPTED, |leaf| {
        leaf.with(|leaf| leaf.extensions.iter_mut().for_each(|it| it.critical = false))
    });
    corpus.leaf("good-everything-critical", ACCEPTED, |leaf| {
        leaf.with(|leaf| leaf.extensions.iter_mut().for_each(|it| it.critical = true))
    });
    corpus.leaf("good-empty-subject", ACCEPTED, |leaf| {
        leaf.replace(names(true, &[uri(AGENT)])).with(|leaf| leaf.subject = name(""))
    });
    corpus.leaf("good-unknown-extension", ACCEPTED, |leaf| leaf.add(unknown(false)));
    corpus.leaf("good-far-future", ACCEPTED, |leaf| leaf.with(|leaf| leaf.not_after = year(9999)));
    let longest = format!("spiffe://example.org/{}", "a".repeat(2048 - 21));
    corpus.id("good-longest-id", ACCEPTED, longest);
    corpus.id("good-every-character", ACCEPTED, "spiffe://example.org/AZ/az/09/._-/...");
    corpus.intermediate("good-intermediate", ACCEPTED, |above| above);
    corpus.intermediate("good-intermediate-of-the-domain", ACCEPTED, |above| {
        above.add(names(false, &[uri("spiffe://example.org")]))
    });
    corpus.intermediate("good-intermediate-with-other-uri", ACCEPTED, |above| {
        above.add(names(false, &[uri("https://example.org/ca")]))
    });
    corpus.intermediate("good-intermediate-without-usage", ACCEPTED, |above| {
        above.without(KEY_USAGE)
    });
    corpus.intermediate("good-intermediate-last-of-its-path", ACCEPTED, |above| {
        above.replace(constraints(true, Some(0)))
    });
    let Keys { root, intermediate, second, other, .. } = corpus.keys;
    let two = vec![
        Draft::leaf(AGENT, second).sign(second),
        Draft::authority(second, intermediate).sign(intermediate),
        Draft::authority(intermediate, root).sign(root),
    ];
    corpus.chain("good-two-intermediates", ACCEPTED, two);
    let idle =
        vec![Draft::leaf(AGENT, root).sign(root), Draft::authority(second, other).sign(other)];
    corpus.chain("good-intermediate-of-no-use", ACCEPTED, idle);
    corpus.chain("good-federated", ACCEPTED, vec![Draft::leaf(FOREIGN, other).sign(other)]);
}

fn ids(corpus: &mut Corpus<'_>) {
    for (name, id) in [
        ("scheme-upper-case", "SPIFFE://example.org/agent"),
        ("scheme-https", "https://example.org/agent"),
        ("scheme-alone", "spiffe:"),
        ("scheme-one-slash", "spiffe:/example.org/agent"),
        ("domain-upper-case", "spiffe://Example.org/agent"),
        ("domain-none", "spiffe:///agent"),
        ("domain-port", "spiffe://example.org:8443/agent"),
        ("domain-user", "spiffe://user@example.org/agent"),
        ("domain-percent", "spiffe://example%2eorg/agent"),
        ("domain-address", "spiffe://[::1]/agent"),
        ("domain-letters-of-others", "spiffe://ex\u{e4}mple.org/agent"),
        ("path-none", "spiffe://example.org"),
        ("path-root", "spiffe://example.org/"),
        ("path-slash-at-end", "spiffe://example.org/agent/"),
        ("path-empty-segment", "spiffe://example.org/a//b"),
        ("path-dot", "spiffe://example.org/./agent"),
        ("path-dots", "spiffe://example.org/../agent"),
        ("path-percent", "spiffe://example.org/%2e%2e/agent"),
        ("path-query", "spiffe://example.org/agent?x=1"),
        ("path-fragment", "spiffe://example.org/agent#x"),
        ("path-space", "spiffe://example.org/an agent"),
        ("path-backslash", "spiffe://example.org/a\\b"),
        ("path-newline", "spiffe://example.org/agent\n"),
        ("path-nul", "spiffe://example.org/agent\0.evil"),
        ("path-star", "spiffe://example.org/*"),
        ("path-letters-of-others", "spiffe://example.org/ag\u{e9}nt"),
        ("id-empty", ""),
        ("id-byte-order-mark", "\u{feff}spiffe://example.org/agent"),
    ] {
        corpus.id(name, "spiffe-id", id);
    }
    let long = format!("spiffe://example.org/{}", "a".repeat(2049 - 21));
    corpus.id("id-too-long", "spiffe-id", long);
    corpus.id("domain-too-long", "spiffe-id", format!("spiffe://{}/agent", "a".repeat(256)));
    corpus.id("path-no-utf8", "malformed", b"spiffe://example.org/\xff");
    // These are names that somebody may have, and that nobody here trusts.
    corpus.id("domain-longest", "untrusted-domain", format!("spiffe://{}/a", "a".repeat(255)));
    corpus.id("domain-dot-at-end", "untrusted-domain", "spiffe://example.org./agent");
    corpus.id("domain-punycode", "untrusted-domain", "spiffe://xn--exmple-cua.org/agent");
    corpus.id("domain-below", "untrusted-domain", "spiffe://a.example.org/agent");
    corpus.id("domain-beginning", "untrusted-domain", "spiffe://example.or/agent");
}

fn uri_names(corpus: &mut Corpus<'_>) {
    let many: Vec<_> = (0..33).map(|at| uri(format!("spiffe://example.org/{at}"))).collect();
    for (name, expected, found) in [
        ("uris-two", "uri-names", vec![uri(AGENT), uri("spiffe://example.org/second")]),
        ("uris-the-same-twice", "uri-names", vec![uri(AGENT), uri(AGENT)]),
        ("uris-spiffe-and-https", "uri-names", vec![uri("https://example.org"), uri(AGENT)]),
        ("uris-33", "uri-names", many),
        ("uris-none", "uri-names", vec![dns("agent")]),
        ("uris-one-no-utf8", "malformed", vec![uri(AGENT), uri(b"spiffe://example.org/\xff")]),
        ("names-empty", "uri-names", Vec::new()),
        ("id-as-dns-name", "uri-names", vec![dns(AGENT)]),
    ] {
        corpus.leaf(name, expected, |leaf| leaf.replace(names(false, &found)));
    }
    corpus.leaf("names-none", "uri-names", |leaf| leaf.without(ALTERNATIVE_NAME));
    corpus.leaf("names-twice", "malformed", |leaf| leaf.add(names(false, &[uri(AGENT)])));
    corpus.leaf("id-in-subject-alone", "uri-names", |leaf| {
        leaf.without(ALTERNATIVE_NAME).with(|leaf| leaf.subject = name(AGENT))
    });
}

fn extensions(corpus: &mut Corpus<'_>) {
    corpus.leaf("authority", "authority", |leaf| leaf.replace(constraints(true, None)));
    corpus.leaf("authority-path-0", "authority", |leaf| leaf.replace(constraints(true, Some(0))));
    corpus.leaf("constraints-none", "authority", |leaf| leaf.without(BASIC_CONSTRAINTS));
    corpus.leaf("constraints-twice", "malformed", |leaf| leaf.add(constraints(false, None)));
    corpus.leaf("usage-none", "no-digital-signature", |leaf| leaf.without(KEY_USAGE));
    corpus.leaf("usage-twice", "malformed", |leaf| leaf.add(usage(DIGITAL_SIGNATURE)));
    for (name, expected, bits) in [
        ("usage-empty", "no-digital-signature", 0),
        ("usage-encipherment", "no-digital-signature", KEY_ENCIPHERMENT),
        ("usage-cert-sign", "signing-usage", DIGITAL_SIGNATURE | CERT_SIGN),
        ("usage-crl-sign", "signing-usage", DIGITAL_SIGNATURE | CRL_SIGN),
        ("usage-both-signs", "signing-usage", DIGITAL_SIGNATURE | CERT_SIGN | CRL_SIGN),
    ] {
        corpus.leaf(name, expected, |leaf| leaf.replace(usage(bits)));
    }
    corpus.leaf("purposes-none", "no-extended-usage", |leaf| leaf.without(EXTENDED_KEY_USAGE));
    for (name, caller, callee, purposes) in [
        ("purposes-empty", "untrusted-chain", "untrusted-chain", &[][..]),
        ("purposes-code", "untrusted-chain", "untrusted-chain", &[CODE_SIGNING]),
        ("purposes-any", "untrusted-chain", "untrusted-chain", &[ANY_USAGE]),
        ("purposes-client", ACCEPTED, "untrusted-chain", &[CLIENT_AUTH]),
        ("purposes-server", "untrusted-chain", ACCEPTED, &[SERVER_AUTH]),
    ] {
        corpus.leaf(name, caller, |leaf| leaf.replace(extended(purposes)));
        corpus.cases.last_mut().unwrap().expected[1] = callee;
    }
    corpus.leaf("unknown-critical", "untrusted-chain", |leaf| leaf.add(unknown(true)));
}

fn keys_and_times(corpus: &mut Corpus<'_>) {
    for key in ["rsa1024", "p192", "secp256k1"] {
        corpus
            .leaf(format!("key-{key}"), "key", |leaf| leaf.with(|leaf| leaf.key = public_key(key)));
    }
    corpus.leaf("key-none", "malformed", |leaf| leaf.with(|leaf| leaf.key = sequence(&[])));
    let valid = |from: u16, to: u16| {
        move |draft: Draft| {
            draft.with(|draft| (draft.not_before, draft.not_after) = (year(from), year(to)))
        }
    };
    corpus.leaf("time-expired", "expired", valid(2020, 2030));
    corpus.leaf("time-not-yet", "not-yet-valid", valid(2031, 2032));
    corpus.leaf("time-backwards", "untrusted-chain", valid(2032, 2029));
    corpus.intermediate("time-intermediate-expired", "expired", valid(2020, 2030));
    corpus.intermediate("time-intermediate-not-yet", "not-yet-valid", valid(2031, 2032));
    let expired = &corpus.keys.expired;
    let leaf = Draft::leaf(AGENT, expired).sign(expired);
    corpus.chain("time-root-expired", "unfit-authority", vec![leaf]);
}

fn chains(corpus: &mut Corpus<'_>) {
    let Keys { root, intermediate, second, other, impostor, .. } = corpus.keys;
    let leaf_of = |signer: &Signer| Draft::leaf(AGENT, signer).sign(signer);
    corpus.chain("chain-impostor", "untrusted-chain", vec![leaf_of(impostor)]);
    corpus.chain("chain-of-another-root", "untrusted-chain", vec![leaf_of(other)]);
    let chain = vec![leaf_of(other), Draft::authority(other, other).sign(other)];
    corpus.chain("chain-with-another-root", "untrusted-chain", chain);
    let chain = vec![Draft::leaf(FOREIGN, root).sign(root)];
    corpus.chain("chain-root-of-another-domain", "untrusted-chain", chain);
    let itself = Signer::read("second", "agent");
    let own = Draft::leaf(AGENT, &itself).with(|draft| draft.key = itself.public());
    corpus.chain("chain-signed-by-itself", "untrusted-chain", vec![own.sign(&itself)]);
    let as_root = Draft::authority(root, root);
    corpus.chain("chain-root-as-leaf", "authority", vec![as_root.sign(root)]);
    let as_root = as_root.add(names(false, &[uri(AGENT)])).sign(root);
    corpus.chain("chain-root-with-id-as-leaf", "authority", vec![as_root]);
    corpus.chain("chain-without-intermediate", "untrusted-chain", vec![leaf_of(intermediate)]);
    let chain = vec![leaf_of(intermediate), Draft::authority(second, root).sign(root)];
    corpus.chain("chain-wrong-intermediate", "untrusted-chain", chain);
    let below = Draft::leaf("spiffe://example.org/second", root)
        .with(|draft| (draft.subject, draft.key) = (name(second.name), second.public()));
    let chain = vec![leaf_of(second), below.sign(root)];
    corpus.chain("chain-leaf-as-authority", "untrusted-chain", chain);
    corpus.intermediate("chain-no-constraints", "untrusted-chain", |above| {
        above.without(BASIC_CONSTRAINTS)
    });
    corpus.intermediate("chain-no-cert-sign", "unfit-authority", |above| {
        above.replace(usage(DIGITAL_SIGNATURE))
    });
    for (name, expected, extension) in [
        ("chain-unknown-critical", "untrusted-chain", unknown(true)),
        ("chain-excluded-name", "untrusted-chain", name_constraints(&[], &["example.org"])),
        ("chain-permitted-other-name", "untrusted-chain", name_constraints(&["other.org"], &[])),
        // What cross-signing makes: an authority of another domain under a root of ours.
        ("chain-cross-signed", "unfit-authority", names(false, &[uri("spiffe://other.org")])),
        (
            "chain-authority-with-path",
            "unfit-authority",
            names(false, &[uri("spiffe://example.org/ca")]),
        ),
    ] {
        corpus.intermediate(name, expected, |above| above.add(extension));
    }
    let short = vec![
        leaf_of(second),
        Draft::authority(second, intermediate).sign(intermediate),
        Draft::authority(intermediate, root).replace(constraints(true, Some(0))).sign(root),
    ];
    corpus.chain("chain-path-too-long", "untrusted-chain", short);
    let mut many = vec![leaf_of(root)];
    many.extend((0..9).map(|at| {
        Draft::authority(second, root).with(|draft| draft.serial = vec![at + 1]).sign(root)
    }));
    corpus.chain("chain-nine-intermediates", "chain-too-long", many);
    // Two authorities that sign each other lead nowhere.
    let circle = vec![
        leaf_of(second),
        Draft::authority(second, intermediate).sign(intermediate),
        Draft::authority(intermediate, second).sign(second),
    ];
    corpus.chain("chain-circle", "untrusted-chain", circle);
}

fn encodings(corpus: &mut Corpus<'_>) {
    let root = &corpus.keys.root;
    let draft = Draft::leaf(AGENT, root);
    let good = draft.sign(root).to_vec();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        vec![CertificateDer::from(bytes)]
    };
    let last = good.len() - 1;
    corpus.chain("bytes-none", "malformed", vec![CertificateDer::from(Vec::new())]);
    corpus.chain("bytes-cut", "malformed", changed(&|bytes| bytes.truncate(last)));
    corpus.chain("bytes-after", "malformed", changed(&|bytes| bytes.push(0)));
    corpus.chain("bytes-signature", "untrusted-chain", changed(&|bytes| bytes[last] ^= 1));
    let too_long = vec![CertificateDer::from(vec![0x30; 17 * 1024])];
    corpus.chain("bytes-too-many", "too-long", too_long);
    // A length of three bytes where two would do, which DER forbids.
    corpus.chain(
        "length-not-shortest",
        "untrusted-chain",
        changed(&|bytes| {
            assert_eq!(bytes[1], 0x82);
            bytes.splice(1..2, [0x83, 0]);
        }),
    );
    let other = draft.clone().with(|draft| draft.not_after = year(2040));
    let borrowed = other.assemble(&other.body(), &good[good.len() - 64..]);
    corpus.chain("signature-of-another", "untrusted-chain", vec![borrowed]);
    corpus.chain("signature-none", "untrusted-chain", vec![draft.assemble(&draft.body(), &[])]);
    let sha1 = algorithm(SHA1_RSA);
    corpus.leaf("signature-sha1", "untrusted-chain", |leaf| {
        leaf.with(|leaf| (leaf.algorithm, leaf.outer_algorithm) = (sha1.clone(), sha1.clone()))
    });
    corpus.leaf("signature-two-algorithms", "untrusted-chain", |leaf| {
        leaf.with(|leaf| leaf.outer_algorithm = sha1)
    });
    corpus.leaf("version-1", "authority", |leaf| {
        leaf.with(|leaf| (leaf.version, leaf.extensions) = (None, Vec::new()))
    });
    corpus.leaf("version-1-with-extensions", "untrusted-chain", |leaf| {
        leaf.with(|leaf| leaf.version = None)
    });
    let second = tlv(0x30, &uri("spiffe://example.org/second"));
    for (name, expected, mut extension, more) in [
        ("constraints-with-more", "untrusted-chain", constraints(false, None), tlv(5, &[])),
        ("usage-with-more", "malformed", usage(DIGITAL_SIGNATURE), tlv(5, &[])),
        ("names-with-more", "untrusted-chain", names(false, &[uri(AGENT)]), second),
        (
            "purposes-with-more",
            "untrusted-chain",
            extended(&[SERVER_AUTH, CLIENT_AUTH]),
            tlv(5, &[]),
        ),
    ] {
        extension.value.extend(more);
        corpus.leaf(name, expected, |leaf| leaf.replace(extension));
    }
    corpus.leaf("names-of-no-form", "malformed", |leaf| {
        let mut text = names(false, &[]);
        text.value = tlv(0x0c, AGENT.as_bytes());
        leaf.replace(text)
    });
}
