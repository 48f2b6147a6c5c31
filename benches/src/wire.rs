//! The one request, and how an answer is known to be right.

use std::fmt::Write;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use convoke_a2a::client::{Answer, build_send, parse_response, result_of};
use convoke_a2a::jsonrpc::RequestIdJson;
use convoke_model::{CapabilityName, Json, MessageId};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

/// The tutorial's sentence.
const SENTENCE: &str =
    "This is a wonderful document. It contains great information and amazing insights.";

/// What `count_words` says of it.
const RESULT: &str = r#"{"word_count":12,"text_length":81}"#;

/// How an answer begins that is one.
const SUCCESS: &[u8] = b"HTTP/1.1 200 ";

/// How an answer begins when the worker could not serve the call now.
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 ";

/// What such an answer has in it when the worker's processors were behind, so that it turned the
/// call away before anything was decided about it.
const BEHIND: &[u8] = b"is behind with its work";

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A request and what has to come back, byte by byte.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) request: Vec<u8>,
    head_bytes: usize,
    body: Vec<u8>,
    /// Where the body has the identifiers that the agent makes anew for each answer.
    free: Vec<Range<usize>>,
    /// Whether any success is right.
    is_any: bool,
}

/// The request: `SendMessage` that calls `count_words` with the tutorial's sentence.
pub(crate) fn request() -> Result<Vec<u8>> {
    send("count_words", &json!({ "text": SENTENCE }))
}

/// `SendMessage` that calls `capability` with `params`, as the bytes of an HTTP/1.1 request.
pub(crate) fn send(capability: &str, params: &Value) -> Result<Vec<u8>> {
    let params = Json::of(params)?;
    let capability = CapabilityName::parse(capability)?;
    let (headers, body) =
        build_send(Some(&capability), &params, &MessageId::parse("bench-1")?, &id());
    let mut head = String::from("POST / HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in &headers {
        write!(head, "{name}: {}\r\n", value.to_str()?)?;
    }
    write!(head, "content-length: {}\r\n\r\n", body.len())?;
    let mut request = head.into_bytes();
    request.extend_from_slice(&body);
    Ok(request)
}

/// `method` with `params` as the bytes of an HTTP/1.1 request, which takes a stream where there is
/// one, and further header `fields`.
pub(crate) fn call(method: &str, params: &Value, fields: &str) -> Vec<u8> {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: \
         text/event-stream, application/json\r\na2a-version: 1.0\r\n{fields}content-length: \
         {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Parameters of a message that calls `capability` with `params`; the answer comes once the task is
/// there.
pub(crate) fn message(capability: &str, params: &Value) -> Value {
    json!({
        "message": {
            "messageId": "bench-1",
            "role": "ROLE_USER",
            "parts": [{ "data": params }],
            "extensions": [CAPABILITY_EXTENSION],
            "metadata": { CAPABILITY_EXTENSION: { "name": capability } },
        },
        "configuration": { "returnImmediately": true },
    })
}

/// The header field under which a message may name its capability.
pub(crate) const EXTENSION_FIELD: &str = "a2a-extensions: urn:convoke:ext:capability:v1\r\n";

const CAPABILITY_EXTENSION: &str = "urn:convoke:ext:capability:v1";

/// The result in the body of `answer`, which has to be a success.
pub(crate) fn result(answer: &[u8]) -> Result<Value> {
    let text = || String::from_utf8_lossy(answer).into_owned();
    let Extent { head, total } = measure(answer)?.with_context(text)?;
    ensure!(answer.starts_with(SUCCESS) && total == answer.len(), text());
    let mut body: Value = serde_json::from_slice(&answer[head..])?;
    ensure!(body.get("error").is_none(), text());
    Ok(body["result"].take())
}

fn id() -> RequestIdJson {
    RequestIdJson::from(1)
}

/// Where the head of an answer ends and where the answer does, in bytes from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) head: usize,
    pub(crate) total: usize,
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// What was expected.
    Right,
    /// The call was refused because policy did not decide in time; the worker's record has to say
    /// so too.
    Refused,
    /// The call was turned away unread, because the processors were busy with something else; of
    /// that there is a count and no record.
    TurnedAway,
}

/// How far the answer at the beginning of `bytes` goes; nothing if it is not there as a whole.
///
/// # Errors
///
/// If it is not HTTP/1.1 with a length.
pub(crate) fn measure(bytes: &[u8]) -> Result<Option<Extent>> {
    ensure!(bytes.len() <= ANSWER_BYTES_MAX, "an answer of more than {ANSWER_BYTES_MAX} bytes");
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end])?;
    ensure!(head.starts_with("HTTP/1.1 "), "an answer of another kind: {head}");
    let length = fields(head).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.context("an answer without content-length")?.1.parse()?;
    let (head, total) = (end + 4, end + 4 + length);
    Ok((bytes.len() >= total).then_some(Extent { head, total }))
}

/// The fields of a head, without its first line.
pub(crate) fn fields(head: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = head.split("\r\n").skip(1);
    lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim()))
}

impl Exchange {
    /// The exchange whose answer is `answer`, which is read thoroughly once; those that follow have
    /// to be the same.
    ///
    /// # Errors
    ///
    /// If the answer is not right.
    pub(crate) fn with_answer(request: Vec<u8>, answer: &[u8]) -> Result<Self> {
        let Extent { head: head_bytes, total } =
            measure(answer)?.context("the answer is not whole")?;
        ensure!(total == answer.len(), "bytes behind the answer");
        ensure!(answer.starts_with(SUCCESS), "no success: {}", String::from_utf8_lossy(answer));
        let head = std::str::from_utf8(&answer[..head_bytes])?;
        let mut headers = HeaderMap::new();
        for (name, value) in fields(head) {
            headers.append(HeaderName::try_from(name)?, HeaderValue::from_str(value)?);
        }
        let body = answer[head_bytes..].to_vec();
        let bytes = Bytes::copy_from_slice(&body);
        let parsed = parse_response(&id(), StatusCode::OK, &headers, &bytes)?;
        ensure!(result_of(&parsed)?.get() == RESULT, "another result than {RESULT}");
        let Answer::Message(message) = parsed else { bail!("a task instead of a message") };
        let context = message.context_id.as_ref().map(|id| id.as_str());
        let made = [Some(message.message_id.as_str()), context];
        let free = places(&body, made.into_iter().flatten())?;
        Ok(Self { request, head_bytes, body, free, is_any: false })
    }

    /// The exchange whose answers are all right that are a success without an error in it, for what
    /// is not measured by its answers.
    pub(crate) fn any(request: Vec<u8>) -> Self {
        Self { request, head_bytes: 0, body: Vec::new(), free: Vec::new(), is_any: true }
    }

    /// The exchange whose answer is `answer`: a task that has begun and is worked on. Those that
    /// follow have to be the same, but for the names that are made and the instants.
    ///
    /// # Errors
    ///
    /// If the answer is another.
    pub(crate) fn with_task(request: Vec<u8>, answer: &[u8]) -> Result<Self> {
        let result = self::result(answer)?;
        let task = &result["task"];
        let of = |value: &Value| value.as_str().map(str::to_owned);
        ensure!(task["status"]["state"] == "TASK_STATE_WORKING", "not a task at work: {result}");
        let made = [&task["id"], &task["contextId"], &task["status"]["timestamp"]].map(of);
        let Extent { head: head_bytes, total } =
            measure(answer)?.context("the answer is not whole")?;
        let body = answer[head_bytes..total].to_vec();
        let free = places(&body, made.iter().flatten().map(String::as_str))?;
        Ok(Self { request, head_bytes, body, free, is_any: false })
    }

    /// Whether an answer is the expected one but for date and identifiers, or says that the call
    /// could not be served now.
    ///
    /// # Errors
    ///
    /// If it is neither.
    pub(crate) fn check(&self, head_bytes: usize, answer: &[u8]) -> Result<Said> {
        let wrong = || format!("a wrong answer: {}", String::from_utf8_lossy(answer));
        if answer.starts_with(UNAVAILABLE) {
            let behind = answer.windows(BEHIND.len()).any(|words| words == BEHIND);
            return Ok(if behind { Said::TurnedAway } else { Said::Refused });
        }
        if self.is_any {
            let has_error = answer.windows(9).any(|words| words == b"\"error\":{");
            ensure!(answer.starts_with(SUCCESS) && !has_error, wrong());
            return Ok(Said::Right);
        }
        ensure!(answer.starts_with(SUCCESS) && head_bytes == self.head_bytes, wrong());
        let body = &answer[head_bytes..];
        ensure!(body.len() == self.body.len(), wrong());
        let mut from = 0;
        for free in self.free.iter().chain([&(body.len()..body.len())]) {
            ensure!(body[from..free.start] == self.body[from..free.start], wrong());
            from = free.end;
        }
        Ok(Said::Right)
    }

    /// Bytes of the answer's body.
    pub(crate) fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// Bytes of the answer's head.
    pub(crate) fn head_bytes(&self) -> usize {
        self.head_bytes
    }
}

/// Where `body` has the texts `made`, every time.
fn places<'a>(body: &[u8], made: impl Iterator<Item = &'a str>) -> Result<Vec<Range<usize>>> {
    let mut free = Vec::new();
    for made in made {
        let quoted = format!("\"{made}\"");
        let before = free.len();
        let found = body.windows(quoted.len()).enumerate();
        let found = found.filter(|(_, window)| *window == quoted.as_bytes());
        free.extend(found.map(|(at, _)| at + 1..at + 1 + made.len()));
        ensure!(free.len() > before, "`{made}` is not written as it was read");
    }
    free.sort_by_key(|range| range.start);
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: ";

    fn answer(id: &str, count: u32) -> Vec<u8> {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"message":{{"messageId":"{id}","role":"ROLE_AGENT","parts":[{{"data":{{"word_count":{count},"text_length":81}}}}]}}}}}}"#
        );
        format!("{HEAD}{}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn an_answer_is_whole_or_not() {
        fn check(text: &str, expected: Option<usize>) {
            let head = format!("{HEAD}3\r\n\r\n").len();
            let expected = expected.map(|body| Extent { head, total: head + body });
            assert_eq!(measure(text.as_bytes()).unwrap(), expected, "{text}");
        }
        check("", None);
        check(HEAD, None);
        check(&format!("{HEAD}3\r\n\r\nab"), None);
        check(&format!("{HEAD}3\r\n\r\nabc"), Some(3));
        check(&format!("{HEAD}3\r\n\r\nabcd"), Some(3));
        for wrong in [
            "220 ready\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        ] {
            assert!(measure(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn identifiers_may_differ_and_nothing_else() {
        let exchange = Exchange::with_answer(Vec::new(), &answer("aaaa", 12)).unwrap();
        let check = |answer: &[u8]| {
            let Extent { head, .. } = measure(answer).unwrap().unwrap();
            exchange.check(head, answer)
        };
        assert_eq!(check(&answer("aaaa", 12)).unwrap(), Said::Right);
        assert_eq!(check(&answer("bbbb", 12)).unwrap(), Said::Right);
        let of_status = |status| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(check(of_status("503 Busy").as_bytes()).unwrap(), Said::Refused);
        let behind =
            "HTTP/1.1 503 Busy\r\ncontent-length: 34\r\n\r\nthe agent is behind with its work;";
        assert_eq!(check(behind.as_bytes()).unwrap(), Said::TurnedAway);
        assert!(check(of_status("403 Forbidden").as_bytes()).is_err());
        assert!(check(of_status("500 Fault").as_bytes()).is_err());
        assert!(check(&answer("bbbb", 13)).is_err());
        assert!(check(&answer("bbbbb", 12)).is_err());
    }

    #[test]
    fn the_first_answer_is_read_thoroughly() {
        assert!(Exchange::with_answer(Vec::new(), &answer("aaaa", 11)).is_err());
        assert!(Exchange::with_answer(Vec::new(), b"HTTP/1.1 200 OK\r\n").is_err());
    }

    #[test]
    fn the_request_calls_count_words() {
        let request = String::from_utf8(request().unwrap()).unwrap();
        assert!(request.starts_with("POST / HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(r#"{"name":"count_words"}"#), "{request}");
    }
}
