//! A card as a client reads it: tolerant of what it does not know, bounded in what it takes.

use convoke_model::{Json, JsonError, limits};

use crate::headers::CAPABILITY_EXTENSION;
use crate::reader::{Kind, Path, Problems, Reader, array, object};
use crate::scalar::{name, names};
use crate::scan::{ScanError, ScanLimits, scan};

/// What a card says, as far as a client of ours needs it, and the whole of it as it came.
///
/// Its texts are a stranger's: show them, never follow them.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    /// The card as it came.
    pub json: Json,
    /// The agent's name.
    pub name: String,
    /// What the agent says it is for.
    pub description: Option<String>,
    /// The agent's own version.
    pub version: Option<String>,
    /// Where and how it is called, the preferred way first.
    pub interfaces: Vec<Interface>,
    /// What it can do.
    pub skills: Vec<SkillEntry>,
}

/// One way to call an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The address: a peer's word, to be dialled under the rules for peers' addresses.
    pub url: String,
    /// `JSONRPC`, `GRPC`, `HTTP+JSON` or the URI of another.
    pub protocol_binding: String,
    /// The version of A2A, such as `1.0`.
    pub protocol_version: String,
    /// What has to be sent as the tenant of every request.
    pub tenant: Option<String>,
}

/// One skill.
#[derive(Debug, Clone, PartialEq)]
pub struct SkillEntry {
    /// Its id; for an agent of Convoke the capability's name.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// What it does.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The JSON Schema of its parameters, if the card has our extension.
    pub input_schema: Option<Json>,
    /// The JSON Schema of its result, if the card has our extension and the skill has one.
    pub output_schema: Option<Json>,
}

/// Why a card cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not JSON within our bounds.
    #[error("the card is refused")]
    Scan(#[source] ScanError),
    /// It cannot be kept.
    #[error("the card cannot be kept")]
    Json(#[source] JsonError),
    /// It is JSON, and no card.
    #[error("the card is none: {}", format!("{field} {description}").trim_start())]
    Shape {
        /// The first field that is wrong; empty for the card itself.
        field: String,
        /// What is wrong with it.
        description: String,
    },
}

impl Card {
    /// Reads a card. Of interfaces and skills, those that lack what makes them usable are left out.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if it is no JSON within [`ScanLimits::CARD`], or has no name.
    pub fn read(bytes: &[u8]) -> Result<Self, ReadError> {
        const NAMES: &[&str] =
            &["name", "description", "version", "supportedInterfaces", "skills", "capabilities"];
        let text = scan(bytes, &ScanLimits::CARD).map_err(ReadError::Scan)?;
        let mut problems = Problems::default();
        let (mut title, mut description, mut version) = (None, None, None);
        let (mut interfaces, mut skills, mut schemas) = (Vec::new(), Vec::new(), Vec::new());
        let at = &Path::Root;
        let card = &mut Reader::new(text);
        object(card, at, &mut problems, NAMES, None, |field, reader, at, problems| match field {
            "name" => title = name(reader, at, problems),
            "description" => description = loose(reader),
            "version" => version = loose(reader),
            "supportedInterfaces" => {
                interfaces = list(reader, at, interface);
            }
            "skills" => skills = list(reader, at, skill),
            _ => schemas = own_schemas(reader, at),
        });
        let Some(name) = problems.require(at, "name", title) else {
            let first = problems.0.into_iter().next();
            let (field, description) =
                first.map(|first| (first.field, first.description)).unwrap_or_default();
            return Err(ReadError::Shape { field, description });
        };
        for (id, input, output) in schemas {
            if let Some(skill) = skills.iter_mut().find(|skill: &&mut SkillEntry| skill.id == id) {
                (skill.input_schema, skill.output_schema) = (input, output);
            }
        }
        let json = Json::parse(text.trim_ascii()).map_err(ReadError::Json)?;
        Ok(Self { json, name, description, version, interfaces, skills })
    }

    /// The first interface that this crate speaks: JSON-RPC with A2A 1.0.
    #[must_use]
    pub fn jsonrpc(&self) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| {
            let version = interface.protocol_version.as_str();
            interface.protocol_binding == "JSONRPC"
                && (version == "1.0" || version.starts_with("1.0."))
        })
    }
}

/// Reads what can be read of an array: what is wrong in it is left out, since a card with one odd
/// entry is still a card.
fn list<'a, T>(
    reader: &mut Reader<'a>,
    at: &Path<'_>,
    item: fn(&mut Reader<'a>, &Path<'_>) -> Option<T>,
) -> Vec<T> {
    let mut ignored = Problems::default();
    array(reader, at, &mut ignored, limits::JSON_KEYS_MAX, |reader, at, _| item(reader, at))
}

/// A string, or nothing.
fn loose(reader: &mut Reader<'_>) -> Option<String> {
    reader.string().map(std::borrow::Cow::into_owned)
}

fn interface(reader: &mut Reader<'_>, at: &Path<'_>) -> Option<Interface> {
    const NAMES: &[&str] = &["url", "protocolBinding", "protocolVersion", "tenant"];
    let (mut url, mut binding, mut version, mut tenant) = (None, None, None, None);
    let mut ignored = Problems::default();
    object(reader, at, &mut ignored, NAMES, None, |field, reader, at, problems| match field {
        "url" => url = name(reader, at, problems),
        "protocolBinding" => binding = name(reader, at, problems),
        "protocolVersion" => version = name(reader, at, problems),
        _ => tenant = name(reader, at, problems),
    });
    Some(Interface { url: url?, protocol_binding: binding?, protocol_version: version?, tenant })
}

fn skill(reader: &mut Reader<'_>, at: &Path<'_>) -> Option<SkillEntry> {
    const NAMES: &[&str] = &["id", "name", "description", "tags"];
    let (mut id, mut title, mut description, mut tags) = (None, None, None, Vec::new());
    let mut ignored = Problems::default();
    object(reader, at, &mut ignored, NAMES, None, |field, reader, at, problems| match field {
        "id" => id = name(reader, at, problems),
        "name" => title = name(reader, at, problems),
        "description" => description = loose(reader),
        _ => tags = names(reader, at, problems),
    });
    let id = id?;
    Some(SkillEntry {
        name: title.unwrap_or_else(|| id.clone()),
        id,
        description: description.unwrap_or_default(),
        tags,
        input_schema: None,
        output_schema: None,
    })
}

type Schemas = (String, Option<Json>, Option<Json>);

/// The schemas of each skill by its id, from our extension among `capabilities.extensions`.
fn own_schemas(reader: &mut Reader<'_>, at: &Path<'_>) -> Vec<Schemas> {
    let mut ignored = Problems::default();
    let mut found = Vec::new();
    object(reader, at, &mut ignored, &["extensions"], None, |_, reader, at, problems| {
        array(reader, at, problems, limits::NAMES_MAX, |reader, at, problems| {
            let (mut uri, mut params) = (None, None);
            object(
                reader,
                at,
                problems,
                &["uri", "params"],
                None,
                |field, reader, _, _| match field {
                    "uri" => uri = loose(reader),
                    _ => params = reader.raw(),
                },
            );
            if let (Some(CAPABILITY_EXTENSION), Some(params)) = (uri.as_deref(), params) {
                found = by_id(&mut Reader::new(params), at);
            }
            None::<()>
        });
    });
    found
}

fn by_id(params: &mut Reader<'_>, at: &Path<'_>) -> Vec<Schemas> {
    let mut ignored = Problems::default();
    let mut found = Vec::new();
    object(params, at, &mut ignored, &["capabilities"], None, |_, reader, at, problems| {
        if reader.kind() != Kind::Object {
            return reader.skip();
        }
        reader.enter();
        while let Some(id) = reader.key() {
            let (mut input, mut output) = (None, None);
            let names = &["inputSchema", "outputSchema"];
            object(reader, at, problems, names, None, |field, reader, _, _| match field {
                "inputSchema" => input = reader.json(),
                _ => output = reader.json(),
            });
            found.push((id.into_owned(), input, output));
        }
    });
    found
}
