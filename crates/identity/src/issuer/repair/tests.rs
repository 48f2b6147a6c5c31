#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn repaired(stream: &[u8]) -> Vec<u8> {
    let mut stream = stream.to_vec();
    Repair::default().pass(&mut stream);
    stream
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

fn stream(frames: &[Vec<u8>]) -> Vec<u8> {
    [PREFACE.as_slice(), &frames.concat()].concat()
}

/// A text as HPACK writes it without Huffman's code.
fn text(value: &[u8]) -> Vec<u8> {
    let mut written = Vec::new();
    match value.len() {
        length if length < 127 => written.push(u8::try_from(length).unwrap()),
        length => {
            let mut rest = length - 127;
            written.push(127);
            while rest >= 128 {
                written.push(u8::try_from(rest % 128).unwrap() | 0x80);
                rest /= 128;
            }
            written.push(u8::try_from(rest).unwrap());
        }
    }
    written.extend_from_slice(value);
    written
}

/// How the name of a literal is written.
#[derive(Debug, Clone, Copy)]
enum Named {
    ByIndex,
    InFull,
}

fn authority(first: u8, named: Named, value: &[u8]) -> Vec<u8> {
    match named {
        Named::ByIndex => [&[first | 1], text(value).as_slice()].concat(),
        Named::InFull => [&[first], text(AUTHORITY).as_slice(), &text(value)].concat(),
    }
}

const AUTHORITY: &[u8] = b":authority";
const END_HEADERS: u8 = 4;

/// The block around a value: an indexed field, the authority, then a path with a `%` in it.
fn block(authority: &[u8]) -> Vec<u8> {
    [&[0x83], authority, &[0x44], &text(b"/a%2Fb")].concat()
}

#[test]
fn what_other_libraries_send_becomes_valid() {
    for (sent, expected) in [
        ("tmp%2Frun%2Fapi.sock", "tmp-2Frun-2Fapi.sock"),
        ("/tmp/run/api.sock", "-tmp-run-api.sock"),
        ("localhost", "localhost"),
        ("localhost:8080", "localhost:8080"),
        ("a:b:c", "a:b-c"),
        ("u@h", "u-h"),
        ("[::1]", "-:-1-"),
        ("\u{e9}\0\n ", "-----"),
    ] {
        for first in [0x40, 0x00, 0x10] {
            for named in [Named::ByIndex, Named::InFull] {
                let of = |value: &str| {
                    let block = block(&authority(first, named, value.as_bytes()));
                    stream(&[frame(4, 0, &[]), frame(HEADERS, END_HEADERS, &block)])
                };
                assert_eq!(repaired(&of(sent)), of(expected), "{sent} {first:#x} {named:?}");
            }
        }
    }
}

#[test]
fn the_block_is_found_in_whatever_frames_it_comes() {
    let value = "a/".repeat(200);
    let of = |value: &str, padded: bool, priority: bool, cut: usize| {
        let block = block(&authority(0x40, Named::InFull, value.as_bytes()));
        let (head, tail) = block.split_at(cut.min(block.len()));
        let mut payload = Vec::new();
        let mut flags = 0;
        if padded {
            payload.push(3);
            flags |= FLAG_PADDED;
        }
        if priority {
            payload.extend_from_slice(b"/////");
            flags |= FLAG_PRIORITY;
        }
        payload.extend_from_slice(head);
        if padded {
            payload.extend_from_slice(b"///");
        }
        let data = frame(0, 0, b"/%/");
        let frames =
            [frame(HEADERS, flags, &payload), frame(CONTINUATION, END_HEADERS, tail), data];
        // A second request begins a block of its own, wherever the first one ended.
        let second = block_of_second(value);
        stream(&[frames.concat(), frame(HEADERS, END_HEADERS, &second)])
    };
    for padded in [false, true] {
        for priority in [false, true] {
            for cut in 0..20 {
                let found = repaired(&of(&value, padded, priority, cut));
                let expected = of(&value.replace('/', "-"), padded, priority, cut);
                assert!(found == expected, "{padded} {priority} {cut}");
            }
        }
    }
}

fn block_of_second(value: &str) -> Vec<u8> {
    // A new size of the table and a long index come before it.
    [
        &[0x3f, 0xe1, 0x1f, 0xff, 0x80, 0x01],
        authority(0x40, Named::ByIndex, value.as_bytes()).as_slice(),
    ]
    .concat()
}

#[test]
fn what_is_none_of_our_business_stays() {
    let untouched = |stream: &[u8]| assert_eq!(repaired(stream), stream);
    // Coded by Huffman: `/sample/path` in RFC 7541's code begins with these bytes.
    let mut coded = vec![0x41, 0x89];
    coded.extend_from_slice(b"/////////");
    untouched(&stream(&[frame(HEADERS, END_HEADERS, &coded)]));
    // Other names, of the same length and of others.
    for name in [":authoritz", ":Authority", "authority:", ":authorit", ":authority:", ""] {
        let block = [&[0x40], text(name.as_bytes()).as_slice(), &text(b"a/b%c")].concat();
        untouched(&stream(&[frame(HEADERS, END_HEADERS, &block)]));
    }
    // Not HTTP/2 at all.
    let plain = [b"GET / HTTP/1.1\r\n".as_slice(), &authority(0x40, Named::ByIndex, b"/")].concat();
    untouched(&plain);
    // Padding that is longer than its frame; a number without an end.
    let block = authority(0x40, Named::ByIndex, b"/");
    untouched(&stream(&[
        frame(HEADERS, FLAG_PADDED, &[200, 1]),
        frame(HEADERS, END_HEADERS, &block),
    ]));
    untouched(&stream(&[
        frame(HEADERS, 0, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        frame(HEADERS, END_HEADERS, &block),
    ]));
    untouched(&stream(&[frame(HEADERS, FLAG_PADDED, &[]), frame(HEADERS, END_HEADERS, &block)]));
    untouched(&stream(&[frame(HEADERS, FLAG_PRIORITY, &[1]), frame(HEADERS, END_HEADERS, &block)]));
}

#[tokio::test]
async fn a_connection_that_is_repaired_reads_what_comes_in_pieces_and_writes_what_is_written() {
    let (mut near, far) = tokio::io::duplex(16);
    let sent =
        stream(&[frame(HEADERS, END_HEADERS, &block(&authority(0x40, Named::InFull, b"a/b%c")))]);
    let expected = repaired(&sent);
    assert_ne!(sent, expected);
    let writer = tokio::spawn(async move {
        near.write_all(&sent).await.unwrap();
        let mut answer = [0; 3];
        near.read_exact(&mut answer).await.unwrap();
        answer
    });
    let mut repaired = Repaired::new(far);
    let mut read = vec![0; expected.len()];
    repaired.read_exact(&mut read).await.unwrap();
    assert_eq!(read, expected);
    repaired.write_all(b"/%/").await.unwrap();
    assert_eq!(writer.await.unwrap(), *b"/%/");
}

/// Sends one request over HTTP/2 to a server behind the adapter, and gives what both saw of it:
/// the authority, the path and the body.
async fn round_trip(authority: String, path: String, body: Bytes) -> (String, String, Bytes) {
    use http_body_util::{BodyExt, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let (near, far) = tokio::io::duplex(64);
    let (seen, saw) = tokio::sync::oneshot::channel();
    let seen = std::sync::Mutex::new(Some(seen));
    let service =
        hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let seen = seen.lock().unwrap().take();
            async move {
                let authority = request.uri().authority().unwrap().to_string();
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await?.to_bytes();
                let _ = seen.unwrap().send((authority, path, body.clone()));
                Ok::<_, hyper::Error>(http::Response::new(Full::new(body)))
            }
        });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(Repaired::new(far)), service);
    let server = tokio::spawn(server);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{authority}{path}"));
    let response =
        sender.send_request(request.body(Full::new(body.clone())).unwrap()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
    drop(sender);
    let saw = saw.await.unwrap();
    connection.abort();
    server.abort();
    saw
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_keep_their_length_and_come_out_the_same(
        bytes in vec(any::<u8>(), 0..512), with_preface: bool, cuts in vec(0_usize..512, 0..8),
    ) {
        let start = if with_preface { PREFACE.as_slice() } else { &[] };
        let stream = [start, &bytes].concat();
        let whole = repaired(&stream);
        prop_assert_eq!(whole.len(), stream.len());
        let mut pieces = stream.clone();
        let mut repair = Repair::default();
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(stream.len());
        let mut from = 0;
        for end in ends {
            repair.pass(&mut pieces[from..end]);
            from = end;
        }
        prop_assert_eq!(whole, pieces);
        fuzz_repair(&bytes);
    }

    #[test]
    fn frames_of_any_content_in_any_pieces(
        frames in vec((0_u8..12, any::<u8>(), vec(any::<u8>(), 0..64)), 0..12), piece in 1_usize..40,
    ) {
        let frames: Vec<_> =
            frames.iter().map(|(kind, flags, payload)| frame(*kind, *flags, payload)).collect();
        let stream = stream(&frames);
        let mut pieces = stream.clone();
        let mut repair = Repair::default();
        pieces.chunks_mut(piece).for_each(|piece| repair.pass(piece));
        prop_assert_eq!(&repaired(&stream), &pieces);
        // Frame headers are never touched.
        let mut at = PREFACE.len();
        for frame in &frames {
            prop_assert_eq!(&pieces[at..at + FRAME_HEADER_BYTES], &frame[..FRAME_HEADER_BYTES]);
            at += frame.len();
        }
    }

    #[test]
    fn any_authority_becomes_valid_and_nothing_else_changes(
        value in vec(any::<u8>(), 1..300), in_full: bool, piece in 1_usize..40,
    ) {
        let named = if in_full { Named::InFull } else { Named::ByIndex };
        let before = stream(&[frame(HEADERS, END_HEADERS, &block(&authority(0x40, named, &value)))]);
        let mut after = before.clone();
        let mut repair = Repair::default();
        after.chunks_mut(piece).for_each(|piece| repair.pass(piece));
        let from = before.len() - text(b"/a%2Fb").len() - 1 - value.len();
        let found = &after[from..from + value.len()];
        prop_assert!(http::uri::Authority::try_from(found).is_ok(), "{:?}", found);
        prop_assert_eq!(&before[..from], &after[..from]);
        prop_assert_eq!(&before[from + value.len()..], &after[from + value.len()..]);
        if http::uri::Authority::try_from(value.as_slice()).is_ok()
            && !value.iter().any(|byte| b"@[]%".contains(byte))
        {
            prop_assert_eq!(found, value.as_slice());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn requests_of_our_own_http2_come_through_unchanged(
        authority in "[a-z0-9.-]{1,80}(:[0-9]{1,4})?", path in "/[a-zA-Z0-9/._~%2F-]{0,60}",
        body in vec(any::<u8>(), 0..2000),
    ) {
        let path = path.replace('%', "%25");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let body = Bytes::from(body);
        let sent = (authority, path, body);
        let saw = runtime.block_on(round_trip(sent.0.clone(), sent.1.clone(), sent.2.clone()));
        prop_assert_eq!(saw, sent);
    }
}
