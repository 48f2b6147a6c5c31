use convoke::{Context, HandlerError, agent};

struct {{Name}};

#[agent]
impl {{Name}} {
    /// Greet somebody by name
    #[capability(ephemeral)]
    async fn greet(&self, context: &Context, name: String) -> Result<String, HandlerError> {
        let from = &context.config().metadata.name;
        greeting(&name, from).map_err(HandlerError::new)
    }

    /// Have another agent greet somebody by name
    #[capability(ephemeral)]
    async fn greet_through(&self, context: &Context, name: String) -> Result<String, HandlerError> {
        let greeter = context.config().registry("greeter")?;
        let params = serde_json::json!({ "name": name });
        let said: String = context.call_agent(greeter, "greet", &params).into().await?;
        Ok(said)
    }
}

fn greeting(name: &str, from: &str) -> Result<String, &'static str> {
    match name.trim() {
        "" => Err("nobody is named"),
        name => Ok(format!("Hello {name}, this is {from}")),
    }
}

fn main() -> std::process::ExitCode {
    convoke::main({{Name}})
}

#[cfg(test)]
mod tests {
    use convoke::serve::{Config, load_policy};

    use super::*;

    #[test]
    fn a_greeting_has_both_names() {
        assert_eq!(greeting(" Ada ", "Bob"), Ok("Hello Ada, this is Bob".to_owned()));
    }

    #[test]
    fn nobody_is_not_greeted() {
        assert_eq!(greeting(" ", "Bob"), Err("nobody is named"));
    }

    #[test]
    fn the_configuration_and_its_policy_load() {
        let config = Config::load("config.yaml".as_ref()).unwrap();
        assert!(config.warnings().is_empty(), "{:?}", config.warnings());
        assert!(config.agent_config().registry("greeter").is_ok());
        load_policy(&config).unwrap();
    }
}
