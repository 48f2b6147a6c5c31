//! `convoke serve`: an agent of this binary, until it is asked to end.

use convoke::chain;
use convoke::serve::{Host, ServeError, ServeOptions};

use crate::args::{BuiltIn, Serve};
use crate::exit::{Code, Failure};
use crate::paint::{Paint, plain, say};
use crate::{output, signals};

/// `convoke serve --check`.
fn check(options: &Serve, host: &Host, paint: Paint) -> Result<(), Failure> {
    let checked = convoke::serve::check(&options.config, host)
        .map_err(|error| Failure::new(Code::Usage, chain(&error)))?;
    if options.json {
        return output::print(&checked.to_json());
    }
    for warning in &checked.warnings {
        let name = checked.config.display();
        say(format!("{} {name}: {}", paint.bold("warning:"), plain(warning)));
    }
    say(format!("{} {checked}", paint.good("valid:")));
    Ok(())
}

pub(crate) async fn run(options: Serve, paint: Paint) -> Result<(), Failure> {
    let host = match options.agent {
        BuiltIn::DocumentWorker => Host::new(document_pipeline::DocumentWorker),
        BuiltIn::DocumentOrchestrator => Host::new(document_pipeline::DocumentOrchestrator),
        BuiltIn::Summarizer => Host::new(document_pipeline::Summarizer),
    };
    let host = host.map_err(|error| Failure::new(Code::Failure, error))?;
    if options.check {
        return check(&options, &host, paint);
    }
    let ending = signals::ending(options.until_stdin_ends)?;
    let (shutdown, cut) = (ending.drain().clone(), ending.cut().clone());
    let reload =
        convoke::serve::on_hangup(&shutdown).map_err(|error| Failure::new(Code::Failure, error))?;
    let serve = ServeOptions { dev: options.dev, shutdown, cut, reload, log_panics: true };
    convoke::serve::run(&options.config, host, serve).await.map_err(|error| {
        let error = error.ended_by(ending.cut_by());
        let code = match (&error, error.exit_code()) {
            (ServeError::Cut { by: Some(signal), .. }, _) => Code::of_signal(*signal),
            (_, 2) => Code::Usage,
            (_, 10) => Code::NoIdentity,
            _ => Code::Failure,
        };
        Failure::new(code, chain(&error))
    })
}
