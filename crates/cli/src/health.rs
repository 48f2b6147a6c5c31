//! `convoke health`: whether an agent is ready to work.

use crate::args::Health;
use crate::exit::{Code, Failure};
use crate::{card, paint};

pub(crate) async fn run(options: Health) -> Result<(), Failure> {
    let path = "/health/ready";
    let answer = card::get(&options.address, options.agent.as_ref(), &options.as_who, path).await?;
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
