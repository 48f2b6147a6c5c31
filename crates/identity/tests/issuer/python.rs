//! The Python package `spiffe`, which speaks by gRPC's C core: the library whose `:authority` the
//! issuer repairs.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::rust::{pem, root_of_another};
use crate::world::{CALLER, WORKER, World, our_uid};

/// What a program of another language does with the Workload API, all of it.
const CLIENT: &str = r#"
import sys, time
from spiffe import JwtSource, SpiffeId, TrustDomain, WorkloadApiClient, X509Source

worker, caller, file, root = sys.argv[1:]
domain, other = TrustDomain("example.org"), TrustDomain("other.org")
with WorkloadApiClient() as client:
    ids = sorted(str(svid.spiffe_id) for svid in client.fetch_x509_svids())
    assert ids == [caller, worker], ids
    context = client.fetch_x509_context()
    assert str(context.default_svid.spiffe_id) == worker, context.default_svid.spiffe_id
    bundles = client.fetch_x509_bundles()
    assert len(bundles.get_bundle_for_trust_domain(domain).x509_authorities) == 1
    token = client.fetch_jwt_svid(audience={"them"}, subject=SpiffeId(caller))
    assert str(token.spiffe_id) == caller
    valid = client.validate_jwt_svid(token.token, "them")
    assert str(valid.spiffe_id) == caller
    try:
        client.validate_jwt_svid(token.token, "others")
    except Exception as error:
        print("refused:", type(error).__name__)
    else:
        raise AssertionError("a token for others was believed")
    assert client.fetch_jwt_bundles().get_bundle_for_trust_domain(domain).jwt_authorities

with X509Source() as source:
    assert str(source.svid.spiffe_id) == worker
    held = lambda: source.get_bundle_for_trust_domain(other).x509_authorities
    assert len(held()) == 1
    with open(file, "a") as federated:
        federated.write(root)
    deadline = time.monotonic() + 30
    while len(held()) != 2:
        assert time.monotonic() < deadline, "the bundle that changed was not pushed"
        time.sleep(0.05)
with JwtSource() as source:
    assert str(source.fetch_svid(audience={"them"}).spiffe_id) == worker
print("done")
"#;

/// The Python of the environment that `cargo xtask setup` makes.
fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    let python = root.join("target/python/bin/python");
    python.exists().then_some(python)
}

#[tokio::test]
async fn python_s_spiffe_has_everything() {
    let Some(python) = python() else {
        println!(
            "skipped: python_s_spiffe_has_everything: target/python is not there; \
             `cargo xtask setup` makes it"
        );
        return;
    };
    let (first, second) = (root_of_another().await, root_of_another().await);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bundle.pem");
    std::fs::write(&file, pem(&first)).unwrap();
    let federated = (convoke_model::TrustDomain::parse("other.org").unwrap(), file.clone());
    let world = World::with(|config| config.federate = vec![federated]).await;
    world.entry(WORKER, &[our_uid()]).await;
    world.entry(CALLER, &[our_uid()]).await;
    let ran = tokio::process::Command::new(python)
        .args(["-c", CLIENT, WORKER, CALLER])
        .args([file.as_os_str(), pem(&second).as_ref()])
        .env("SPIFFE_ENDPOINT_SOCKET", world.endpoint())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && out.ends_with("done\n"), "{out}{err}");
    world.stop().await;
}
