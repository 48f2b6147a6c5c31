#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use rcgen::KeyPair;
use serde_json::json;

use super::*;

const WORKER: &str = "spiffe://example.org/worker";
const NOW: u64 = 1_800_000_000;

/// A key, the bundle that it is in, and its name.
struct World {
    pair: KeyPair,
    key: SigningKey,
    bundle: JwtBundle,
    kid: String,
}

fn world() -> World {
    let pair = KeyPair::generate().unwrap();
    let key = SigningKey::of(&pair).unwrap();
    let set = serde_json::to_value(key.jwk()).unwrap();
    let kid = set["kid"].as_str().unwrap().to_owned();
    let set = json!({ "keys": [set] }).to_string();
    World { pair, key, bundle: JwtBundle::from_jwks(set.as_bytes()).unwrap(), kid }
}

impl World {
    fn validate_at(&self, token: &str, seconds: u64) -> Result<JwtSvid, JwtError> {
        validate(token, "them", at(seconds), |domain| {
            (domain == "example.org").then_some(&self.bundle)
        })
    }

    fn validate(&self, token: &str) -> Result<JwtSvid, JwtError> {
        self.validate_at(token, NOW)
    }

    /// A token whose header and claims are these texts, signed as they are.
    fn signed(&self, header: &str, claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", part(header), part(claims));
        let key = jsonwebtoken::EncodingKey::from_ec_der(&self.pair.serialize_der());
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::ES256).unwrap();
        format!("{message}.{signature}")
    }

    fn header(&self) -> Value {
        json!({"alg": "ES256", "kid": self.kid, "typ": "JWT"})
    }

    fn with_header(&self, name: &str, value: Value) -> String {
        let mut header = self.header();
        header[name] = value;
        self.signed(&header.to_string(), &claims().to_string())
    }

    fn with_claim(&self, name: &str, value: Value) -> String {
        let mut claims = claims();
        claims[name] = value;
        self.signed(&self.header().to_string(), &claims.to_string())
    }
}

fn claims() -> Value {
    json!({"sub": WORKER, "aud": ["them"], "exp": NOW + 60, "iat": NOW})
}

#[test]
fn what_is_signed_is_believed_until_it_ends() {
    let world = world();
    let id = SpiffeId::parse(WORKER).unwrap();
    let audience = ["us".to_owned(), "them".to_owned()];
    let token = world.key.sign(&id, &audience, at(NOW), Duration::from_secs(60)).unwrap();
    let svid = world.validate(&token).unwrap();
    assert_eq!((&svid.spiffe_id, svid.expires_at), (&id, at(NOW + 60)));
    assert_eq!(svid.claims["aud"], json!(["us", "them"]));
    assert!(world.validate_at(&token, NOW + 59).is_ok());
    assert_eq!(world.validate_at(&token, NOW + 60), Err(JwtError::Expired));

    // Another reader of JWTs agrees about form and signature.
    let mut other = jsonwebtoken::Validation::new(Algorithm::ES256);
    other.set_audience(&["them"]);
    other.validate_exp = false;
    let key = world.bundle.key(&world.kid).unwrap();
    let read = jsonwebtoken::decode::<Value>(&token, key, &other).unwrap();
    assert_eq!(read.header.typ.as_deref(), Some("JWT"));
    assert_eq!(read.claims["sub"], WORKER);
}

#[test]
fn other_people_s_tokens_are_not_believed() {
    let (world, other) = (world(), self::world());
    let good = world.signed(&world.header().to_string(), &claims().to_string());
    assert!(world.validate(&good).is_ok());
    assert!(matches!(other.validate(&good), Err(JwtError::UnknownKey { .. })));
    // Another's signature under our key's name.
    let forged = other.signed(&world.header().to_string(), &claims().to_string());
    assert_eq!(world.validate(&forged), Err(JwtError::Signature));
    let foreign = world.with_claim("sub", json!("spiffe://other.org/worker"));
    assert!(matches!(world.validate(&foreign), Err(JwtError::UnknownTrustDomain { .. })));
    assert!(matches!(
        validate(&good, "others", at(NOW), |_| Some(&world.bundle)),
        Err(JwtError::Audience)
    ));
}

#[test]
fn every_other_header_is_refused() {
    let world = world();
    let none = ["none", "None", "NONE", "nOnE", "", " none", "none ", "n\u{f6}ne", "null"];
    let algorithms = ["HS256", "HS512", "RS256", "PS256", "ES384", "EdDSA", "es256", "ES256 "];
    for alg in none.iter().chain(&algorithms) {
        let token = world.with_header("alg", json!(alg));
        assert!(matches!(world.validate(&token), Err(JwtError::Header(_))), "{alg}");
    }
    let key = serde_json::to_value(world.key.jwk()).unwrap();
    for (name, value) in [
        ("jwk", key),
        ("jku", json!("https://attacker.example/keys")),
        ("x5u", json!("https://attacker.example/cert")),
        ("x5c", json!(["AAAA"])),
        ("x5t", json!("AAAA")),
        ("crit", json!(["b64"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("enc", json!("A128GCM")),
        ("extra", json!(1)),
        ("typ", json!("at+jwt")),
        ("typ", json!("jwt")),
        ("typ", json!(null)),
        ("typ", json!(7)),
        ("alg", json!(null)),
        ("alg", json!(["ES256"])),
        ("kid", json!(null)),
        ("kid", json!("")),
        ("kid", json!("../../dev/null")),
        ("kid", json!("' OR 1=1 --")),
        ("kid", json!("a\u{0}b")),
        ("kid", json!("k".repeat(65))),
        ("kid", json!({"a": 1})),
    ] {
        let token = world.with_header(name, value.clone());
        let found = world.validate(&token);
        assert!(matches!(found, Err(JwtError::Header(_))), "{name} {value}: {found:?}");
    }
    let kid = &world.kid;
    for text in [
        r#"{"alg": "ES256"}"#.to_owned(),
        format!(r#"{{"kid": "{kid}"}}"#),
        format!(r#"{{"alg": "none", "alg": "ES256", "kid": "{kid}"}}"#),
        format!(r#"{{"alg": "ES256", "kid": "{kid}"}} x"#),
        format!(r#"["ES256", "{kid}", "JWT"]"#),
        "null".to_owned(),
        String::new(),
    ] {
        let token = world.signed(&text, &claims().to_string());
        assert!(world.validate(&token).is_err(), "{text}");
    }
    let shortest = format!(r#"{{"alg": "ES256", "kid": "{kid}"}}"#);
    assert!(world.validate(&world.signed(&shortest, &claims().to_string())).is_ok());
}

#[test]
fn every_claim_has_its_type() {
    let world = world();
    let wrong_times = [
        json!("1900000000"),
        json!(1.9e9),
        json!(1_900_000_000.5),
        json!(-1),
        json!(u64::MAX),
        json!(1_u64 << 53),
        json!(null),
        json!([1_900_000_000]),
        json!({}),
        json!(true),
    ];
    for claim in ["exp", "nbf", "iat"] {
        for value in &wrong_times {
            let token = world.with_claim(claim, value.clone());
            assert!(world.validate(&token).is_err(), "{claim} {value}");
        }
    }
    for (claim, values) in [
        ("sub", vec![json!(null), json!(7), json!([WORKER]), json!(""), json!("worker")]),
        ("sub", vec![json!("spiffe://example.org"), json!("spiffe://example.org/a/../b")]),
        ("aud", vec![json!(null), json!([]), json!(7), json!(["them", 7]), json!({"them": 1})]),
        ("aud", vec![json!(vec!["them"; AUDIENCES_MAX + 1]), json!(["Them"]), json!("us")]),
    ] {
        for value in values {
            let token = world.with_claim(claim, value.clone());
            assert!(world.validate(&token).is_err(), "{claim} {value}");
        }
    }
    for missing in ["sub", "aud", "exp"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(missing);
        let token = world.signed(&world.header().to_string(), &claims.to_string());
        assert!(world.validate(&token).is_err(), "{missing}");
    }
    let twice = format!(r#"{{"sub":"{WORKER}","aud":"them","exp":1,"exp":1900000000}}"#);
    assert!(world.validate(&world.signed(&world.header().to_string(), &twice)).is_err());
    let deep =
        format!(r#"{{"sub":"{WORKER}","aud":"them","exp":1900000000,"x":[{{"y":1,"y":2}}]}}"#);
    assert!(world.validate(&world.signed(&world.header().to_string(), &deep)).is_err());
    assert!(world.validate(&world.with_claim("aud", json!("them"))).is_ok());
    assert!(world.validate(&world.with_claim("more", json!({"a": [1, null]}))).is_ok());
}

#[test]
fn there_is_no_leeway() {
    let world = world();
    for (claim, offset, good) in [
        ("exp", 1, true),
        ("exp", 0, false),
        ("exp", -1, false),
        ("nbf", 0, true),
        ("nbf", 1, false),
    ] {
        let token = world.with_claim(claim, json!(NOW.checked_add_signed(offset).unwrap()));
        assert_eq!(world.validate(&token).is_ok(), good, "{claim} {offset}");
    }
}

#[test]
fn what_is_not_a_token_is_refused() {
    let world = world();
    let good = world.signed(&world.header().to_string(), &claims().to_string());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let with_signature = |bytes: &[u8]| format!("{message}.{}", URL_SAFE_NO_PAD.encode(bytes));
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let order: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    // The same two numbers as DER, in which a lax reader would take them too.
    let der = |raw: &[u8]| {
        let number = |half: &[u8]| [&[2, 33, 0], half].concat();
        let both = [number(&raw[..32]), number(&raw[32..])].concat();
        [&[0x30, u8::try_from(both.len()).unwrap()], both.as_slice()].concat()
    };
    let mut cases = vec![
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        ".".repeat(1_000_000),
        "a".repeat(TOKEN_BYTES_MAX + 1),
        format!("{message}."),
        message.to_owned(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{good}="),
        format!(" {good}"),
        format!("{good}\n"),
        good.replace('.', ","),
        with_signature(&[0; 64]),
        with_signature(&[order, order].concat()),
        with_signature(&[&order, &raw[32..]].concat()),
        with_signature(&[&raw[..32], &[0; 32]].concat()),
        with_signature(&der(&raw)),
        with_signature(&raw[..63]),
        with_signature(&[raw.as_slice(), &[0]].concat()),
    ];
    for length in (0..good.len()).step_by(17) {
        cases.push(good[..length].to_owned());
    }
    for case in cases {
        assert!(world.validate(&case).is_err(), "{}", &case[..case.len().min(600)]);
    }
    // Every single bit of the signature counts.
    for bit in 0..raw.len() * 8 {
        let mut changed = raw.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(world.validate(&with_signature(&changed)), Err(JwtError::Signature), "{bit}");
    }
}
