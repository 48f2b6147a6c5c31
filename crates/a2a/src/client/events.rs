//! Server-sent events, from bytes as they arrive. Source: the WHATWG HTML standard, §9.2.6.

use http::header::HeaderMap;

/// Finds the events in the bytes of a body. What it keeps is bounded, whatever the server sends.
#[derive(Debug)]
pub struct EventReader {
    event_bytes_max: usize,
    /// What has come and was not read, from `at` on.
    buffer: Vec<u8>,
    at: usize,
    /// No line ends before here.
    seen: usize,
    /// Whether the next byte is the first of all.
    is_first: bool,
    /// Whether the last line ended in a carriage return, to which a line feed may still belong.
    after_return: bool,
    data: Vec<u8>,
    has_data: bool,
    id: Option<String>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its data, the lines joined by line feeds.
    pub data: Vec<u8>,
    /// The last id that the stream gave, with this event or before: at a server of ours, the number
    /// of the newest event of the task that is known by then.
    pub id: Option<String>,
}

/// An event, a line of one, or a comment, is longer than the reader takes. The rest of the stream is
/// of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {max} bytes")]
pub struct EventTooLong {
    /// The bound, in bytes.
    pub max: usize,
}

/// Whether an answer is a stream of events.
#[must_use]
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    let mut fields = headers.get_all(http::header::CONTENT_TYPE).iter();
    let (Some(value), None) = (fields.next(), fields.next()) else { return false };
    let media = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    media.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

impl EventReader {
    /// A reader of events of at most `event_bytes_max` bytes each.
    #[must_use]
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            buffer: Vec::new(),
            at: 0,
            seen: 0,
            is_first: true,
            after_return: false,
            data: Vec::new(),
            has_data: false,
            id: None,
        }
    }

    /// Adds bytes of the body. Read the events in them before more is added: that is when the bound
    /// is looked at.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.buffer.drain(..self.at);
            self.seen -= self.at;
            self.at = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next event that has come whole; `None` if more bytes are needed for one.
    ///
    /// # Errors
    ///
    /// [`EventTooLong`] if what has come of one event is more than the bound.
    pub fn next_event(&mut self) -> Result<Option<Event>, EventTooLong> {
        while let Some(line) = self.line()? {
            if line.is_empty() {
                // An event without data is none.
                if std::mem::take(&mut self.has_data) {
                    let data = std::mem::take(&mut self.data);
                    return Ok(Some(Event { data, id: self.id.clone() }));
                }
                continue;
            }
            self.field(line.start, line.end)?;
        }
        Ok(None)
    }

    /// Where the next whole line is in the buffer, without its end.
    fn line(&mut self) -> Result<Option<std::ops::Range<usize>>, EventTooLong> {
        const MARK: &[u8] = b"\xEF\xBB\xBF";
        if self.is_first && !self.buffer.is_empty() {
            if self.buffer.len() < MARK.len() && MARK.starts_with(&self.buffer) {
                return Ok(None);
            }
            self.is_first = false;
            if self.buffer.starts_with(MARK) {
                (self.at, self.seen) = (MARK.len(), MARK.len());
            }
        }
        if self.after_return && self.at < self.buffer.len() {
            self.after_return = false;
            if self.buffer[self.at] == b'\n' {
                self.at += 1;
                self.seen = self.at;
            }
        }
        let fresh = &self.buffer[self.seen..];
        let Some(offset) = fresh.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            self.seen = self.buffer.len();
            let kept = self.data.len() + self.buffer.len() - self.at;
            return if kept > self.event_bytes_max { Err(self.too_long()) } else { Ok(None) };
        };
        let line = self.at..self.seen + offset;
        self.after_return = self.buffer[line.end] == b'\r';
        self.at = line.end + 1;
        self.seen = self.at;
        Ok(Some(line))
    }

    fn field(&mut self, start: usize, end: usize) -> Result<(), EventTooLong> {
        let line = &self.buffer[start..end];
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &[][..]),
        };
        match name {
            b"data" => {
                if self.data.len() + value.len() + 1 > self.event_bytes_max {
                    return Err(self.too_long());
                }
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            // An id that no cursor of ours could be is not kept.
            b"id" if value.len() <= convoke_model::limits::ID_BYTES_MAX => {
                self.id = std::str::from_utf8(value)
                    .ok()
                    .filter(|id| !id.contains('\0'))
                    .map(str::to_owned);
            }
            // Comments have no name; A2A gives no meaning to the other fields.
            _ => {}
        }
        Ok(())
    }

    fn too_long(&self) -> EventTooLong {
        EventTooLong { max: self.event_bytes_max }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 64;

    fn read(pieces: &[&[u8]]) -> Result<Vec<(String, Option<String>)>, EventTooLong> {
        let mut reader = EventReader::new(MAX);
        let mut events = Vec::new();
        for piece in pieces {
            reader.push(piece);
            while let Some(event) = reader.next_event()? {
                events.push((String::from_utf8(event.data).unwrap(), event.id));
            }
            assert!(reader.buffer.len() - reader.at <= MAX);
        }
        Ok(events)
    }

    /// Reads `text` whole and byte by byte.
    fn check(text: &str, expected: &[(&str, Option<&str>)]) {
        let expected: Vec<_> =
            expected.iter().map(|(data, id)| ((*data).to_owned(), id.map(str::to_owned))).collect();
        assert_eq!(read(&[text.as_bytes()]).as_ref(), Ok(&expected), "{text:?}");
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes), Ok(expected), "{text:?} byte by byte");
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        check("data: {}\n\n", &[("{}", None)]);
        check("data:a\ndata: b\ndata\n\n", &[("a\nb\n", None)]);
        check("data: a\r\n\r\ndata: b\r\rdata: c\n\n", &[("a", None), ("b", None), ("c", None)]);
        check("\u{feff}data: a\nid: 7\n\ndata: b\n\n", &[("a", Some("7")), ("b", Some("7"))]);
        check(":\n\n: comment\n\n\n\ndata:  a\nevent: x\nretry: 9\n\n", &[(" a", None)]);
        check("id: 1\n\ndata: a\n\ndata: cut", &[("a", Some("1"))]);
        check("Data: a\nda: b\n\n", &[]);
        check("data: a\nid: 1\0\n\n", &[("a", None)]);
    }

    #[test]
    fn nothing_grows_without_bound() {
        let long = "x".repeat(MAX + 1);
        let too_long = Err(EventTooLong { max: MAX });
        for text in [
            format!("data: {long}\n\n"),
            format!("data: {long}"),
            long.clone(),
            format!(":{long}"),
            "data: xxxxxxx\n".repeat(10),
            "data\n".repeat(MAX + 2),
        ] {
            assert_eq!(read(&[text.as_bytes()]), too_long, "{text}");
        }
        // An id is remembered for the stream's life, so a long one is not.
        let mut reader = EventReader::new(10_000);
        reader.push(format!("id: {}\ndata: a\n\n", "7".repeat(1000)).as_bytes());
        assert_eq!(reader.next_event().unwrap().unwrap().id, None);
    }

    #[test]
    fn a_content_type_says_what_an_answer_is() {
        for (value, expected) in [
            ("text/event-stream", true),
            ("Text/Event-Stream; charset=utf-8", true),
            ("application/json", false),
            ("text/event-streams", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::CONTENT_TYPE, value.parse().unwrap());
            assert_eq!(is_event_stream(&headers), expected, "{value}");
        }
        assert!(!is_event_stream(&HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_does_not_matter(
            text in "(data|id|:|x)?:?[ a\r\n]{0,4}(data: a\r?\n|id: 1\n|\n|\r){0,6}",
            cut in 0_usize..64,
        ) {
            let bytes = text.as_bytes();
            let (left, right) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(read(&[left, right]), read(&[bytes]));
        }
    }
}
