//! `convoke identity`: the embedded issuer, its entries, and a look at what an issuer gives.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use convoke::chain;
use convoke::identity::issuer::{
    Added, AdminClient, AdminError, Entry as Registered, Issuer, IssuerConfig, IssuerError,
    Refusal, Registration, harden_process,
};
use convoke::serve::{EndSignal, Ending, Environment, Format, log_to_stderr};
use serde_json::{Value, json};

use crate::args::{self, Entry, IdentityServe, IdentityShow};
use crate::exit::{Code, Failure};
use crate::paint::{Paint, say};
use crate::{call, signals};

pub(crate) async fn serve(options: IdentityServe) -> Result<(), Failure> {
    let format = if std::io::stderr().is_terminal() { Format::Pretty } else { Format::Json };
    let guard = log_to_stderr(format, tracing::Level::INFO)
        .map_err(|error| Failure::new(Code::Failure, error))?;
    guard.log_panics();
    let data_dir = match options.data_dir {
        Some(dir) => dir,
        None => data_dir(options.trust_domain.as_str())?,
    };
    let trust_domain = options.trust_domain.clone();
    let mut config = IssuerConfig::new(options.trust_domain, data_dir.clone(), options.socket);
    config.svid_ttl = options.ttl;
    config.svid_renew_after = options.renew_after;
    config.jwt_svid_ttl = options.jwt_ttl;
    config.ca_ttl = options.ca_ttl;
    config.federate = options.federate;
    // Before there is a key in memory.
    harden_process()
        .map_err(|error| Failure::of_file(Code::Failure, "guard the process", &error))?;
    let issuer = Issuer::open(config).map_err(|error| not_issuing(&error))?;
    let ending = signals::ending(options.until_stdin_ends)?;
    let bound = issuer.bind().await.map_err(|error| not_issuing(&error))?;
    tracing::info!(
        trust_domain = %trust_domain,
        socket = %bound.socket().display(),
        data_dir = %data_dir.display(),
        "Issuer started"
    );
    tracing::info!(admin_socket = %bound.admin_socket().display(), "{}", bound.rule());
    tokio::select! {
        biased;
        () = bound.serve(ending.drain().clone()) => Ok(()),
        () = ending.cut().cancelled() => Err(cut(&ending)),
    }
}

/// The end of an issuer that still had connections.
fn cut(ending: &Ending) -> Failure {
    let signal = ending.cut_by().unwrap_or(EndSignal::Terminate);
    let text = "before the last answers were given; connections of workloads were cut off";
    Failure::new(Code::of_signal(signal), format_args!("ended by {} {text}", signal.name()))
}

fn not_issuing(error: &IssuerError) -> Failure {
    let option = match error {
        IssuerError::SvidTtl { .. } => "--ttl",
        IssuerError::SvidRenewal { .. } => "--renew-after",
        IssuerError::CaTtl { .. } => "--ttl or --ca-ttl",
        IssuerError::JwtSvidTtl { .. } => "--jwt-ttl",
        IssuerError::Federated { .. } => "--federate",
        _ => return Failure::new(Code::Failure, chain(error)),
    };
    Failure::new(Code::Usage, chain(error)).hint(format!("change {option}"))
}

fn data_dir(trust_domain: &str) -> Result<PathBuf, Failure> {
    let state = Environment::of_process().data_root().ok_or_else(|| {
        Failure::new(
            Code::Usage,
            "none of CONVOKE_DATA_DIR, XDG_STATE_HOME and HOME says where state is kept",
        )
        .hint("name a directory for the authority's key with --data-dir")
    })?;
    Ok(state.join("issuer").join(trust_domain))
}

pub(crate) async fn show(options: IdentityShow) -> Result<(), Failure> {
    let client = call::connect(&options.as_who, None, options.trust_domain.as_ref()).await?;
    let material = client.material();
    if options.json {
        let report = json!({
            "spiffe_id": client.spiffe_id().as_str(),
            "not_after": material.not_after().to_string(),
            "trust_domains": material.trust_domains().map(|name| name.to_string()).collect::<Vec<_>>(),
        });
        let text = format!("{report}\n");
        std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
        return Ok(());
    }
    say(format!("SPIFFE ID   {}", client.spiffe_id()));
    say(format!("good until  {}", material.not_after()));
    for domain in material.trust_domains() {
        say(format!("trusts      spiffe://{domain}"));
    }
    Ok(())
}

/// `convoke identity entry …`
pub(crate) async fn entry(command: Entry, paint: Paint) -> Result<(), Failure> {
    match command {
        Entry::Add(options) => {
            let (spiffe_id, selectors, ttl) = (options.spiffe_id, options.selector, options.ttl);
            let asked = Registration { spiffe_id, selectors, ttl };
            let added = client(&options.issuer).add(&asked).await;
            let added = added.map_err(|error| not_administered(&error))?;
            report_added(&options.issuer, &added, paint)
        }
        Entry::List(options) => {
            let entries = client(&options.issuer).list().await;
            let entries = entries.map_err(|error| not_administered(&error))?;
            if options.issuer.json {
                return print(
                    &json!({ "entries": entries.iter().map(as_json).collect::<Vec<_>>() }),
                );
            }
            if entries.is_empty() {
                say("no entries");
            }
            entries.iter().for_each(|entry| say(in_words(entry)));
            Ok(())
        }
        Entry::Rm(options) => {
            let removed = client(&options.issuer).remove(options.entry).await;
            let removed = removed.map_err(|error| not_administered(&error))?;
            if options.issuer.json {
                return print(&as_json(&removed));
            }
            say(format!("removed entry {}", in_words(&removed)));
            Ok(())
        }
    }
}

fn client(issuer: &args::Issuer) -> AdminClient {
    // The variable of the environment is a URL, as SPIFFE has it.
    let path = issuer.socket.strip_prefix("unix://").unwrap_or(&issuer.socket);
    AdminClient::new(Path::new(path), issuer.issuer_uid)
}

/// Reports a new entry. The first one takes something away, which nobody would look for in the
/// issuer's log.
fn report_added(issuer: &args::Issuer, added: &Added, paint: Paint) -> Result<(), Failure> {
    if issuer.json {
        let mut json = as_json(&added.entry);
        if let Some(processes) = added.enrolling_ended {
            json["enrolling_ended"] = json!({ "processes": processes });
        }
        return print(&json);
    }
    say(format!("added entry {}", in_words(&added.entry)));
    if let Some(processes) = added.enrolling_ended {
        say(enrolling_ended(processes, &issuer.socket, paint));
    }
    Ok(())
}

/// What the first entry has done to `processes` that run, and how to undo it for each.
fn enrolling_ended(processes: u64, socket: &str, paint: Paint) -> String {
    let whose = match processes {
        0 => "a process that no entry means gets no identity".to_owned(),
        1 => "the one that runs loses its identity when its certificate ends, and any other gets none"
            .to_owned(),
        many => format!(
            "the {many} that run lose their identities when their certificates end, and any other \
             gets none"
        ),
    };
    format!(
        "{} processes do not enrol themselves any more: {whose}; give each an entry: `convoke \
         identity entry add --socket {socket} --spiffe-id ID --selector unix:uid:N --selector \
         unix:path:/PROGRAM`",
        paint.bold("warning:")
    )
}

fn print(report: &Value) -> Result<(), Failure> {
    let text = format!("{report}\n");
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    Ok(())
}

fn as_json(entry: &Registered) -> Value {
    let Registration { spiffe_id, selectors, ttl } = &entry.registration;
    json!({
        "id": entry.id,
        "spiffe_id": spiffe_id.as_str(),
        "selectors": selectors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "ttl_seconds": ttl.map(|ttl| ttl.as_secs()),
    })
}

fn in_words(entry: &Registered) -> String {
    let Registration { spiffe_id, selectors, ttl } = &entry.registration;
    let selectors: Vec<_> = selectors.iter().map(ToString::to_string).collect();
    let ttl = ttl.map(|ttl| format!("  ttl {} s", ttl.as_secs())).unwrap_or_default();
    format!("{}  {spiffe_id}  {}{ttl}", entry.id, selectors.join(" "))
}

fn not_administered(error: &AdminError) -> Failure {
    let code = match error {
        AdminError::Unreachable { .. } => Code::Unreachable,
        AdminError::NotPermitted { .. } => Code::Refused,
        AdminError::WrongOwner { .. } => Code::WrongPeer,
        AdminError::TimedOut { .. } => Code::TimedOut,
        AdminError::Refused { kind, .. } => match kind {
            Refusal::Invalid => Code::Usage,
            Refusal::NotPermitted => Code::Refused,
            Refusal::Exists | Refusal::NotFound | Refusal::Failed => Code::Failure,
        },
        AdminError::Protocol { .. } => Code::Failure,
    };
    Failure::new(code, chain(error))
}
