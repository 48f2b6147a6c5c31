//! `convoke config`, `convoke validate` and `convoke init` from outside.

use serde_json::{Value, json};

use crate::process::run;
use crate::world::World;

const CONFIG: &str = "identity:\n  spiffe_id: spiffe://example.org/worker\n  spire_socket: /api.sock\n\
    server:\n  port: 1\n  host: 127.0.0.1\n";

#[test]
fn what_holds_is_shown_with_where_it_is_from() {
    let world = World::new();
    world.write("worker.yaml", CONFIG);
    let shown = |args: &[&str]| {
        let mut command = world.command(&[&["config", "show", "worker.yaml"], args].concat());
        let done = run(command.env("CONVOKE_OBSERVABILITY__AUDIT__SYNC", "true"), b"");
        assert_eq!(done.code, Some(0), "{done:?}");
        done
    };
    let all = shown(&[]).stdout;
    for line in [
        "identity.spiffe_id: spiffe://example.org/worker  # line 2",
        "server.port: 1  # line 5",
        "server.host: 127.0.0.1  # line 6",
        "server.drain_timeout: 30s  # default",
        "observability.audit.sync: true  # CONVOKE_OBSERVABILITY__AUDIT__SYNC",
    ] {
        assert!(all.lines().any(|shown| shown == line), "no `{line}` in\n{all}");
    }
    // The host is written, and what it would be anyway.
    assert_eq!(shown(&["--changed"]).stdout.lines().count(), 4);
    let report = shown(&["--changed", "--json"]).json();
    let port = json!({"key": "server.port", "value": "1", "from": "file", "line": 5});
    assert!(report["settings"].as_array().unwrap().contains(&port), "{report}");
}

#[test]
fn what_is_wrong_is_said_of_file_or_variable() {
    let world = World::new();
    world.write("worker.yaml", CONFIG);
    for args in [&["config", "show", "worker.yaml"][..], &["validate", "worker.yaml"]] {
        let mut command = world.command(args);
        let done = run(command.env("CONVOKE_SERVER__PROT", "1"), b"");
        assert_eq!((done.code, done.stdout.as_str()), (Some(2), ""), "{done:?}");
        let said = "error: CONVOKE_SERVER__PROT: CONVOKE_SERVER__PROT is no variable that stands \
                    for a key; did you mean CONVOKE_SERVER__PORT?\n";
        assert!(done.stderr.starts_with(said), "{done:?}");
    }
    // A file is named once, whoever finds the problem.
    world.write("lost.yaml", &format!("{CONFIG}authorization: {{policy_file: lost.rego}}\n"));
    let done = world.run(&["validate", "lost.yaml"]);
    let line = done.stderr.lines().next().unwrap();
    assert!(
        line.starts_with("error: lost.yaml:7:30: there is no policy at ./lost.rego; "),
        "{line}"
    );
}

#[test]
fn what_can_never_start_is_not_valid() {
    let world = World::new();
    let check = |identity: &str, expected: &str| {
        let id = "identity:\n  spiffe_id: spiffe://example.org/worker\n";
        world.write("worker.yaml", &format!("{id}{identity}"));
        let serve = ["serve", "--agent", "document-worker", "worker.yaml"];
        for args in [&["validate", "worker.yaml"][..], &[&serve[..], &["--check"]].concat(), &serve]
        {
            let done = world.run(args);
            assert_eq!((done.code, done.stdout.as_str()), (Some(2), ""), "{done:?}");
            assert!(done.stderr.contains(expected), "{done:?}");
        }
        // Nothing was opened.
        assert!(!world.path("state").exists());
    };
    check("", "worker.yaml: `identity.spire_socket` is missing, and so is SPIFFE_ENDPOINT_SOCKET");
    check(
        "  provider: files\n  files: {certificate: no.pem, private_key: no.key, bundle: no.ca}\n",
        "worker.yaml:4:45: `identity.files.private_key` is no.key: there is no such file",
    );
}

#[test]
fn strict_takes_warnings_for_errors() {
    let world = World::new();
    world.write("worker.yaml", CONFIG);
    let done = world.run(&["validate", "worker.yaml"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stderr.starts_with("warning: worker.yaml: no policy is loaded"), "{done:?}");
    let done = world.run(&["validate", "--strict", "worker.yaml"]);
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.stderr.starts_with("error: worker.yaml: no policy is loaded"), "{done:?}");
    let done = world.run(&["validate", "--strict", "--json", "worker.yaml"]);
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&report[0]["valid"], &report[0]["warnings"]), (&json!(false), &json!([])));
    assert_eq!(report[0]["problems"].as_array().unwrap().len(), 1);
}

#[test]
fn the_schema_is_printed() {
    let schema = World::new().run(&["config", "schema"]);
    let schema: Value = serde_json::from_str(&schema.stdout).unwrap();
    assert_eq!(schema["properties"]["server"]["properties"]["port"]["maximum"], 65535);
    let line = World::new().run(&["config", "schema", "--json"]);
    assert_eq!((line.stdout.lines().count(), line.json()), (1, schema));
}

#[test]
fn another_shape_is_turned_into_this_one() {
    let world = World::new();
    let old = "agent: {name: a, trust_domain: example.org, environment: development}\n\
               transport: {tls_min_version: '1.2', timeout_seconds: 5}\n";
    world.write("old.yaml", old);
    let migrate = ["config", "migrate", "old.yaml"];
    let done = world.run(&[&migrate[..], &["--out", "new.yaml"]].concat());
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{done:?}");
    assert!(done.stderr.contains("2 things to decide, one key without a meaning"), "{done:?}");
    let new = std::fs::read_to_string(world.path("new.yaml")).unwrap();
    assert!(new.contains("  timeout: 5s  # from transport.timeout_seconds\n"), "{new}");
    let mut validate = world.command(&["validate", "new.yaml"]);
    assert_eq!(run(validate.env("SPIFFE_ENDPOINT_SOCKET", "unix:///api.sock"), b"").code, Some(0));
    // The same on standard output, and never over what is there.
    assert_eq!(world.run(&migrate).stdout, new);
    let (error, _) = world.run(&[&migrate[..], &["--out", "new.yaml"]].concat()).failure(2);
    assert!(error.starts_with("new.yaml: "), "{error}");
    let report = world.run(&[&migrate[..], &["--json"]].concat()).json();
    assert_eq!(report["dropped"][0]["key"], "transport.tls_min_version");
    assert_eq!(report["problems"], json!([]));

    // What is left to mend is said, and the result is there to be mended.
    let done = run(&mut world.command(&["config", "migrate", "-"]), b"agent: {name: a}\n");
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.stdout.contains("metadata:\n  name: a"), "{done:?}");
    assert!(done.stderr.contains("`identity.spiffe_id` is missing"), "{done:?}");
    let (error, _) = world.run(&["config", "migrate", "absent.yaml"]).failure(2);
    assert!(error.starts_with("absent.yaml: "), "{error}");
}

#[test]
fn a_project_is_written_where_nothing_is() {
    let world = World::new();
    let done = world.run(&["init", "my.agent", "--trust-domain", "team.example"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let read = |path: &str| std::fs::read_to_string(world.path("my.agent").join(path)).unwrap();
    assert!(read("Cargo.toml").contains(concat!("convoke = \"", env!("CARGO_PKG_VERSION"), "\"")));
    assert!(read("config.yaml").contains("spiffe://team.example/my-agent"));
    assert!(read("src/main.rs").contains("struct MyAgent;"));
    assert_eq!(read(".gitignore"), "/target\n");
    // Every file is named, and what keeps the project from building.
    assert!(done.stderr.contains("\n  src/main.rs\n"), "{done:?}");
    let warning = "warning: the crate `convoke` is not published yet";
    assert!(done.stderr.contains(warning) && done.stderr.contains("--convoke-path"), "{done:?}");

    let checkout = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let args = ["init", "second", "--template", "full", "--convoke-path", checkout, "--json"];
    let report = world.run(&args).json();
    assert_eq!((&report["agent"], &report["warnings"]), (&json!("second"), &json!([])));
    let mut written: Vec<_> = report["written"].as_array().unwrap().iter().collect();
    assert!(written.contains(&&json!("policies/policy_test.rego")), "{report}");
    written.retain(|path| !world.path("second").join(path.as_str().unwrap()).is_file());
    assert_eq!(written, [] as [&Value; 0]);

    let (error, _) = world.run(&["init", "my.agent"]).failure(2);
    assert!(error.ends_with("is not empty"), "{error}");
    let (error, hint) = world.run(&["init", "other", "--name", "fn"]).failure(2);
    assert!(error.starts_with("`fn` cannot be the name of an agent"), "{error}");
    assert!(hint.contains("--name"), "{hint}");
    let (error, _) = world.run(&["init", "other", "--convoke-path", "my.agent"]).failure(2);
    assert!(error.ends_with("is no checkout of Convoke"), "{error}");
    assert!(!world.path("other").exists());
}
