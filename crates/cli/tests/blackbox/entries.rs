//! Registration entries, from the command line to what a process is given.

use serde_json::json;

use crate::process::Process;
use crate::world::World;

const AGENT: &str = "spiffe://example.org/agent";

#[test]
fn entries_say_who_gets_what_until_they_are_removed() {
    let world = World::new();
    let issuer: Process = world.issuer("example.org");
    let socket = world.socket("example.org");
    let entry = |args: &[&str]| {
        world.run(&[&["identity", "entry"], args, &["--socket", &socket, "--json"]].concat())
    };
    let show = || {
        let args = ["identity", "show", "--identity", AGENT, "--socket", &socket, "--json"];
        world.run(&args)
    };
    assert_eq!(show().json()["spiffe_id"], AGENT);
    let enrolled = issuer.wait_for_message("process enrolled itself");
    assert!(enrolled["pid"].is_u64() && enrolled["uid"].is_u64(), "{enrolled}");

    // Nobody is this user, so nobody gets anything, and nobody helps himself any more.
    let nobody = ["add", "--spiffe-id", AGENT, "--selector", "unix:uid:4000000000"];
    let first = entry(&nobody).json();
    assert_eq!(first["id"], 1);
    // What enrolled itself above has ended.
    assert_eq!(first["enrolling_ended"], json!({ "processes": 0 }));
    let (error, _) = show().failure(10);
    let command = format!("convoke identity entry add --socket {socket} --spiffe-id {AGENT}");
    assert!(error.contains(&command) && error.contains("enrolling-ended"), "{error}");
    let (error, _) = entry(&nobody).failure(1);
    assert!(error.contains("entry 1 says the same"), "{error}");

    let uid = format!("unix:uid:{}", enrolled["uid"]);
    let program = std::fs::canonicalize(env!("CARGO_BIN_EXE_convoke")).unwrap();
    let program = format!("unix:path:{}", program.display());
    let both =
        ["add", "--spiffe-id", AGENT, "--selector", &uid, "--selector", &program, "--ttl", "10m"];
    let added = entry(&both).json();
    assert_eq!(added["selectors"], json!([uid, program]));
    assert_eq!(added["ttl_seconds"], 600);
    assert_eq!(show().json()["spiffe_id"], AGENT);
    let listed = entry(&["list"]).json();
    assert_eq!(listed["entries"][1], added);

    assert_eq!(entry(&["rm", "2"]).json(), added);
    show().failure(10);
    let (error, _) = entry(&["rm", "2"]).failure(1);
    assert!(error.contains("no entry 2"), "{error}");
}

#[test]
fn what_an_issuer_is_told_wrongly_is_said_in_its_own_words() {
    let world = World::new();
    let socket = world.socket("example.org");
    let serve = |more: &[&str]| {
        let args = ["identity", "serve", "--trust-domain", "example.org", "--socket", &socket];
        world.run(&[&args[..], more].concat()).failure(2)
    };
    for (more, error, hint) in [
        (["--ttl", "1s"], "good for 1s is too short; make it 2s or more", "--ttl"),
        (["--ca-ttl", "2h"], "an authority good for 2h", "--ca-ttl"),
        (["--jwt-ttl", "2h"], "make it 1s to 1h", "--jwt-ttl"),
        (["--federate", "example.org=/dev/null"], "the issuer's own domain", "--federate"),
    ] {
        let (said, cure) = serve(&more);
        assert!(said.contains(error) && cure.contains(hint), "{said} {cure}");
    }
    let list = ["identity", "entry", "list", "--socket", &socket];
    let (error, _) = world.run(&list).failure(4);
    assert!(error.contains("no issuer answers"), "{error}");
}
