//! `convoke health`: whether an agent is ready to work.

use crate::args::Health;
use crate::exit::{Code, Failure};
use crate::{card, paint};

/// What every report of health has.
#[derive(serde::Deserialize)]
struct Report {
    status: String,
}

pub(crate) async fn run(options: Health) -> Result<(), Failure> {
    let path = "/health/ready";
    let answer = card::get(&options.address, options.agent.as_ref(), &options.as_who, path).await?;
    if !answer.json.to::<Report>().is_ok_and(|report| !report.status.is_empty()) {
        let text = format!("{} answers with JSON that is no report of health", options.address);
        return Err(Failure::new(Code::AgentFailed, text).hint("is this an agent of Convoke's?"));
    }
    paint::result(&answer.json, options.output)?;
    match answer.status {
        200 => Ok(()),
        status => Err(Failure::new(
            Code::AgentFailed,
            format_args!("{} is not ready ({status})", options.address),
        )
        .hint("the answer above names the check that fails")),
    }
}
