use convoke::{Context, agent};

struct {{Name}};

#[agent]
impl {{Name}} {
    /// Greet somebody by name
    #[capability(ephemeral)]
    async fn greet(&self, context: &Context, name: String) -> String {
        greeting(&name, &context.config().metadata.name)
    }
}

fn greeting(name: &str, from: &str) -> String {
    format!("Hello {name}, this is {from}")
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
        assert_eq!(greeting("Ada", "Bob"), "Hello Ada, this is Bob");
    }

    #[test]
    fn the_configuration_and_its_policy_load() {
        let config = Config::load("config.yaml".as_ref()).unwrap();
        assert_eq!(config.metadata.name, "{{name}}");
        load_policy(&config).unwrap();
    }
}
