//! What a task costs that is not lost: acknowledging it, following it, keeping it, finding it again.

pub(crate) mod agent;
pub(crate) mod disk;
pub(crate) mod durable;
pub(crate) mod fill;
pub(crate) mod memory;
mod report;
mod sse;
pub(crate) mod stored;
pub(crate) mod streams;
mod worker;

pub(crate) use report::{durable_table, memory_table, stored_table, streams_table};

use serde_json::json;

use crate::wire;

/// What a task is sent with: about as much as the unary call has.
const TEXT: &str =
    "This is a wonderful document. It contains great information and amazing insights.";

/// The request that makes a task of `capability`, which takes a text; it is answered once the task is
/// committed.
fn send_text(capability: &str) -> Vec<u8> {
    let params = wire::message(capability, &json!({ "text": TEXT }));
    wire::call("SendMessage", &params, wire::EXTENSION_FIELD)
}
