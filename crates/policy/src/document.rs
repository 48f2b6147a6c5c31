//! The whole input document as JSON text, for those who decide or replay elsewhere.

use convoke_model::write_json_string;

use crate::Question;
use crate::field::Field;

/// What stands at `delegation` while there is none. The engine's own document has the same.
const NO_DELEGATION: &[u8] = br#"{"chain":[],"depth":0,"scope":[]}"#;

impl Question<'_> {
    /// The input document of this question, with every fact that is known, as JSON text.
    ///
    /// A policy of this crate is given the part that it can read; who decides elsewhere gets all of
    /// it. Parameters stand in it as their author wrote them.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.document_bytes(self.params));
        out.push(b'{');
        // The fields of a section follow each other.
        let mut open = "";
        for field in Field::ALL.iter().copied() {
            let (section, name) = field.place();
            if section != open {
                if !open.is_empty() {
                    out.push(b'}');
                }
                if !section.is_empty() {
                    key(&mut out, section);
                    out.push(b'{');
                }
                open = section;
            }
            match field {
                Field::Params => {
                    if let Some(params) = self.params {
                        key(&mut out, name);
                        out.extend_from_slice(params.get().as_bytes());
                    }
                }
                Field::Timestamp | Field::TimestampAlias => {
                    key(&mut out, name);
                    write_json_string(&mut out, &self.at.to_string());
                }
                Field::Delegation => {
                    key(&mut out, name);
                    out.extend_from_slice(NO_DELEGATION);
                }
                field => {
                    if let Some(text) = field.text(self) {
                        key(&mut out, name);
                        write_json_string(&mut out, text);
                    }
                }
            }
        }
        if !open.is_empty() {
            out.push(b'}');
        }
        out.push(b'}');
        out
    }
}

/// Writes a key of our own, which needs no escape, behind what is there already.
fn key(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

#[cfg(test)]
mod tests {
    use regorus::Value;

    use crate::field::Fields;
    use crate::fixture::Ask;
    use crate::input::Inputs;

    #[test]
    fn it_is_what_the_engine_sees() {
        let check = |ask: &Ask<'_>| {
            ask.with(|question| {
                let text = String::from_utf8(question.to_json()).unwrap();
                let built =
                    Inputs::new(Fields::under(&[])).document(question, question.params).unwrap();
                assert_eq!(Value::from_json_str(&text).unwrap(), built, "{text}");
            });
        };
        check(&Ask::default());
        check(&Ask { caller: "anonymous", method: "m", params: None });
        check(&Ask { method: "quo\"te\n\u{1b}[2J", ..Ask::default() });
        check(&Ask { params: Some(r#"{"a":[1,2.50,{"b":null}],"c":"\u0000"}"#), ..Ask::default() });
    }

    #[test]
    fn parameters_are_not_edited() {
        let ask = Ask { params: Some(r#"{"n":42.0,"m":1e2}"#), ..Ask::default() };
        let text = ask.with(|question| String::from_utf8(question.to_json()).unwrap());
        assert!(text.contains(r#""params":{"n":42.0,"m":1e2}"#), "{text}");
    }
}
