//! Which capability a message asks for, and with which parameters.

use convoke_model::{CapabilityName, Content, Fault, FaultCode, Json, Message, Part};

use crate::{CapabilityIndex, Host};

impl Host {
    /// Finds the capability that `message` asks for and the parameters that it brings. `named` is
    /// the name in the message's metadata.
    ///
    /// A message that names none goes to the only capability or to the default one. Parameters are
    /// the object of the message's one data part; a lone text part stands for the only property
    /// that the capability requires, if that is a string. They are still to pass
    /// [`check_input`](Self::check_input).
    ///
    /// # Errors
    ///
    /// [`FaultCode::CapabilityNotFound`] lists the capabilities that there are.
    /// [`FaultCode::InvalidParams`] or [`FaultCode::ContentTypeNotSupported`] name the part that
    /// cannot be parameters.
    pub fn resolve(
        &self,
        message: &Message,
        named: Option<&CapabilityName>,
    ) -> Result<(CapabilityIndex, Json), Fault> {
        let index = match named {
            Some(name) => self.find(name).ok_or_else(|| self.unknown(name))?,
            None => self.fallback().ok_or_else(|| self.unnamed())?,
        };
        let params = self.params(index, &message.parts)?;
        Ok((index, params))
    }

    fn params(&self, index: CapabilityIndex, parts: &[Part]) -> Result<Json, Fault> {
        let part = match parts {
            [part] => part,
            _ => {
                return Err(Fault::invalid_field(
                    "message.parts",
                    format!("must be one part with the parameters, not {}", parts.len()),
                ));
            }
        };
        let name = &self.descriptor(index).name;
        match &part.content {
            Content::Data(data) if data.is_object() => Ok(data.clone()),
            Content::Data(_) => Err(Fault::invalid_field(
                "message.parts[0].data",
                format!("must be an object with the parameters of `{name}`"),
            )),
            Content::Text(text) => match self.text_property(index) {
                Some(property) => object(property, text),
                None => Err(Fault::invalid_field(
                    "message.parts[0]",
                    format!("`{name}` takes a data part with its parameters, not text"),
                )),
            },
            Content::Raw(_) | Content::Url(_) => Err(Fault::new(
                FaultCode::ContentTypeNotSupported,
                format!("`{name}` takes a data part with its parameters, not a file"),
            )),
        }
    }

    fn unknown(&self, name: &CapabilityName) -> Fault {
        let ids = self.ids();
        match self.nearest(name) {
            Some(nearest) => self
                .not_found(format!(
                    "no capability `{name}`; did you mean `{nearest}`? this agent has: {ids}"
                ))
                .with("didYouMean", nearest.as_str()),
            None => self.not_found(format!("no capability `{name}`; this agent has: {ids}")),
        }
        .with("capability", name.as_str())
    }

    fn unnamed(&self) -> Fault {
        let ids = self.ids();
        self.not_found(format!(
            "the message names no capability and none is the default; this agent has: {ids}"
        ))
    }

    fn not_found(&self, message: String) -> Fault {
        Fault::new(FaultCode::CapabilityNotFound, message).with("capabilities", self.ids())
    }

    fn ids(&self) -> String {
        let names: Vec<_> = self.capabilities().iter().map(|known| known.name.as_str()).collect();
        names.join(", ")
    }

    /// The name that `name` was surely meant to be: a third of it may be wrong.
    fn nearest(&self, name: &CapabilityName) -> Option<&CapabilityName> {
        let name = name.as_str().to_ascii_lowercase();
        self.capabilities()
            .iter()
            .map(|known| &known.name)
            .map(|known| {
                let distance = strsim::osa_distance(&name, &known.as_str().to_ascii_lowercase());
                (distance, known)
            })
            .filter(|(distance, known)| *distance <= known.as_str().len().max(name.len()) / 3)
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, known)| known)
    }
}

/// `{property: text}`.
fn object(property: &str, text: &str) -> Result<Json, Fault> {
    let pair = serde_json::Map::from_iter([(property.to_owned(), text.into())]);
    Json::of(&pair).map_err(|error| Fault::invalid_field("message.parts[0]", error.to_string()))
}

#[cfg(test)]
mod tests {
    use convoke_model::{MessageId, Role};
    use serde_json::json;

    use super::*;
    use crate::host::tests::{agent, echo};
    use crate::{Agent, Capability};

    fn text_schema() -> serde_json::Value {
        json!({"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]})
    }

    agent!(
        Worker,
        Capability::new("count_words", text_schema, echo),
        Capability::new("detect_sentiment", text_schema, echo),
        Capability::new("sum", json!({"required": ["numbers"]}), echo),
    );
    agent!(
        Assistant,
        Capability::new("sum", json!({}), echo),
        Capability::new("chat", text_schema, echo).default(),
    );
    agent!(Single, Capability::new("sum", json!({}), echo));

    fn check<A: Agent>(
        agent: A,
        named: Option<&str>,
        parts: Vec<Content>,
        expected: Result<(&str, &str), (FaultCode, &str)>,
    ) {
        let host = Host::new(agent).unwrap();
        let parts = parts.into_iter().map(Part::new).collect();
        let message = Message::new(MessageId::parse("m").unwrap(), Role::User, parts);
        let named = named.map(|name| CapabilityName::parse(name).unwrap());
        let resolved = host.resolve(&message, named.as_ref());
        let resolved = resolved
            .as_ref()
            .map(|(index, params)| (host.descriptor(*index).name.as_str(), params.get()))
            .map_err(|fault| (fault.code, fault.message.as_str()));
        assert_eq!(resolved, expected);
    }

    fn data(text: &str) -> Vec<Content> {
        vec![Content::Data(Json::parse(text).unwrap())]
    }

    fn text(text: &str) -> Vec<Content> {
        vec![Content::Text(text.into())]
    }

    #[test]
    fn the_name_chooses() {
        let params = r#"{"text": 42.0}"#;
        check(Worker, Some("count_words"), data(params), Ok(("count_words", params)));
        check(Assistant, Some("sum"), data("{}"), Ok(("sum", "{}")));
        check(
            Worker,
            Some("Count-Words"),
            data("{}"),
            Err((
                FaultCode::CapabilityNotFound,
                "no capability `Count-Words`; did you mean `count_words`? this agent has: \
                 count_words, detect_sentiment, sum",
            )),
        );
        check(
            Worker,
            Some("delete_everything"),
            data("{}"),
            Err((
                FaultCode::CapabilityNotFound,
                "no capability `delete_everything`; this agent has: count_words, \
                 detect_sentiment, sum",
            )),
        );
    }

    #[test]
    fn without_a_name_the_only_one_or_the_default_takes_it() {
        check(Single, None, data("{}"), Ok(("sum", "{}")));
        check(Assistant, None, data("{}"), Ok(("chat", "{}")));
        check(
            Worker,
            None,
            data("{}"),
            Err((
                FaultCode::CapabilityNotFound,
                "the message names no capability and none is the default; this agent has: \
                 count_words, detect_sentiment, sum",
            )),
        );
    }

    #[test]
    fn a_lone_text_is_the_only_required_string() {
        let quoted = r#"{"text":"say \"hi\"\n"}"#;
        check(Assistant, None, text("say \"hi\"\n"), Ok(("chat", quoted)));
        check(Worker, Some("count_words"), text(""), Ok(("count_words", r#"{"text":""}"#)));
        check(
            Worker,
            Some("sum"),
            text("1 2"),
            Err((
                FaultCode::InvalidParams,
                "message.parts[0]: `sum` takes a data part with its parameters, not text",
            )),
        );
    }

    #[test]
    fn what_cannot_be_parameters_is_named() {
        check(
            Single,
            None,
            data("[1]"),
            Err((
                FaultCode::InvalidParams,
                "message.parts[0].data: must be an object with the parameters of `sum`",
            )),
        );
        check(
            Single,
            None,
            [data("{}"), text("and this")].concat(),
            Err((
                FaultCode::InvalidParams,
                "message.parts: must be one part with the parameters, not 2",
            )),
        );
        check(
            Single,
            None,
            vec![Content::Url("https://example.org".into())],
            Err((
                FaultCode::ContentTypeNotSupported,
                "`sum` takes a data part with its parameters, not a file",
            )),
        );
    }

    #[test]
    fn programs_find_the_names_apart_from_the_sentence() {
        let host = Host::new(Worker).unwrap();
        let message = Message::new(
            MessageId::parse("m").unwrap(),
            Role::User,
            vec![Part::new(Content::Text(String::new()))],
        );
        let name = CapabilityName::parse("count_word").unwrap();
        let fault = host.resolve(&message, Some(&name)).unwrap_err();
        assert_eq!(
            fault.metadata,
            [
                ("capabilities", "count_words, detect_sentiment, sum".to_owned()),
                ("didYouMean", "count_words".to_owned()),
                ("capability", "count_word".to_owned()),
            ]
        );
    }
}
