//! `convoke identity`: the embedded issuer, and a look at what an issuer gives.

use std::io::IsTerminal;
use std::path::PathBuf;

use convoke::chain;
use convoke::identity::issuer::{Issuer, IssuerConfig, IssuerError};
use convoke::serve::{Environment, Format, log_to_stderr};
use serde_json::json;

use crate::args::{IdentityServe, IdentityShow};
use crate::exit::{Code, Failure};
use crate::paint::say;
use crate::{call, signals};

pub(crate) async fn serve(options: IdentityServe) -> Result<(), Failure> {
    let format = if std::io::stderr().is_terminal() { Format::Pretty } else { Format::Json };
    let _guard = log_to_stderr(format, tracing::Level::INFO)
        .map_err(|error| Failure::new(Code::Failure, error))?;
    let data_dir = match options.data_dir {
        Some(dir) => dir,
        None => data_dir(options.trust_domain.as_str())?,
    };
    let trust_domain = options.trust_domain.clone();
    let mut config = IssuerConfig::new(options.trust_domain, data_dir.clone(), options.socket);
    config.svid_ttl = options.ttl;
    let fail = |error: IssuerError| Failure::new(Code::Failure, chain(&error));
    let issuer = Issuer::open(config).map_err(fail)?;
    let shutdown = signals::shutdown(options.until_stdin_ends);
    let bound = issuer.bind().await.map_err(fail)?;
    tracing::info!(
        trust_domain = %trust_domain,
        socket = %bound.socket().display(),
        data_dir = %data_dir.display(),
        "Issuer started"
    );
    tracing::info!(admin_socket = %bound.admin_socket().display(), "{}", bound.rule());
    bound.serve(shutdown).await;
    Ok(())
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
