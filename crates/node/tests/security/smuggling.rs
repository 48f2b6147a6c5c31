//! Requests that two readers could take apart in two places: none of them brings a second request
//! in, whatever stands between a caller and the agent.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::mesh::{Mesh, PATIENCE};

/// What is hidden in the bytes of another request; it would be answered with 200.
const HIDDEN: &str = "GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// A request that is meant, and the last one; it is answered with 404.
const LAST: &str = "GET /nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// It is one request, and the next one begins where it should.
const ONE: &[u16] = &[404, 404];

/// It is refused, and the connection closed.
const REFUSED: &[u16] = &[400];

/// It is answered, and the connection closed.
const CLOSED: &[u16] = &[404];

/// Sends a request of `version` with `lines` and `body`, and then the last one; `expected` are the
/// statuses of all answers.
async fn check(mesh: &Mesh, version: &str, lines: &str, body: &str, expected: &[u16]) {
    let mut tcp = TcpStream::connect(mesh.dev).await.unwrap();
    let head = format!("POST /nowhere {version}\r\nhost: localhost\r\n{lines}\r\n");
    tcp.write_all(format!("{head}{body}{LAST}").as_bytes()).await.unwrap();
    let mut read = Vec::new();
    tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut read)).await.unwrap().unwrap();
    let text = String::from_utf8(read).unwrap();
    // The version of an answer is that of its request.
    let answers = text.split("HTTP/1.").skip(1);
    let statuses: Vec<u16> = answers.map(|answer| answer[2..5].parse().unwrap()).collect();
    assert_eq!(statuses, expected, "{version} {lines:?} {body:?}");
}

/// Two lengths, or a length and a coding.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_no_request_is_smuggled_between_two_lengths() {
    let mesh = Mesh::start(&[]).await;
    let length = HIDDEN.len();
    let early = format!("0\r\n\r\n{HIDDEN}");
    let coded = "transfer-encoding: chunked\r\n";
    for (lines, body, expected) in [
        (format!("content-length: {length}\r\n"), HIDDEN, ONE),
        (format!("content-length: 0{length}\r\n"), HIDDEN, ONE),
        (format!("content-length: {length}\r\ncontent-length: {length}\r\n"), HIDDEN, ONE),
        (format!("content-length: {length}\r\ncontent-length: 0\r\n"), HIDDEN, REFUSED),
        (format!("content-length: 0\r\ncontent-length: {length}\r\n"), HIDDEN, REFUSED),
        (format!("content-length: {length}, {length}\r\n"), HIDDEN, REFUSED),
        // RFC 9112 §6.3: the coding counts, and nothing that follows is believed.
        (format!("content-length: {}\r\n{coded}", early.len()), &early, CLOSED),
        (format!("content-length: 5\r\n{coded}"), &early, CLOSED),
        (format!("{coded}content-length: {}\r\n", early.len()), &early, CLOSED),
        (format!("connection: content-length\r\ncontent-length: {length}\r\n"), HIDDEN, ONE),
        (
            format!("upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: {length}\r\n"),
            HIDDEN,
            ONE,
        ),
    ] {
        check(&mesh, "HTTP/1.1", &lines, body, expected).await;
    }
    for length in [
        "+46",
        "-1",
        "0x2e",
        "4 6",
        "46.0",
        "",
        "46;",
        "\"46\"",
        "18446744073709551662",
        "46\r\n 0",
    ] {
        check(&mesh, "HTTP/1.1", &format!("content-length: {length}\r\n"), HIDDEN, REFUSED).await;
    }
    check(&mesh, "HTTP/1.1", &format!("content-length : {length}\r\n"), HIDDEN, REFUSED).await;
    mesh.end().await;
}

/// Every way to write a transfer coding that somebody reads as `chunked` and somebody else does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_no_request_is_smuggled_by_a_transfer_coding() {
    let mesh = Mesh::start(&[]).await;
    let chunk = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    for (lines, expected) in [
        ("transfer-encoding: chunked\r\n", ONE),
        ("Transfer-Encoding:\tChunked \r\n", ONE),
        ("transfer-encoding: xchunked\r\n", REFUSED),
        ("transfer-encoding: identity\r\n", REFUSED),
        ("transfer-encoding: \r\n", REFUSED),
        ("transfer-encoding: chunked, identity\r\n", REFUSED),
        ("transfer-encoding: identity, chunked\r\n", REFUSED),
        ("transfer-encoding: gzip, chunked\r\n", REFUSED),
        ("transfer-encoding: chunked, chunked\r\n", REFUSED),
        ("transfer-encoding: chunked,\r\n", REFUSED),
        ("transfer-encoding: chunked;x=y\r\n", REFUSED),
        ("transfer-encoding: \"chunked\"\r\n", REFUSED),
        ("transfer-encoding: chunked\0\r\n", REFUSED),
        ("transfer-encoding: \x0bchunked\r\n", REFUSED),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", REFUSED),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", REFUSED),
        ("transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n", REFUSED),
        ("transfer-encoding : chunked\r\n", REFUSED),
        (" transfer-encoding: chunked\r\n", REFUSED),
        ("x: y\r\n transfer-encoding: chunked\r\n", REFUSED),
        ("transfer-encoding:\r\n chunked\r\n", REFUSED),
        ("transfer-encoding\r\n: chunked\r\n", REFUSED),
        ("x: y\rtransfer-encoding: chunked\r\n", REFUSED),
        // RFC 9112 §2.2 lets a line end with the line feed alone.
        ("x: y\ntransfer-encoding: chunked\r\n", ONE),
    ] {
        check(&mesh, "HTTP/1.1", lines, &chunk, expected).await;
    }
    check(&mesh, "HTTP/1.0", "transfer-encoding: chunked\r\n", &chunk, REFUSED).await;
    mesh.end().await;
}

/// Chunks whose length two readers could read in two ways, in a body that nobody wants and that is
/// read to find the next request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sec_no_request_is_smuggled_by_a_chunk() {
    let mesh = Mesh::start(&[]).await;
    let size = format!("{:x}", HIDDEN.len());
    for (body, expected) in [
        (format!("{size}\r\n{HIDDEN}\r\n0\r\n\r\n"), ONE),
        (format!("0{size};x=y\r\n{HIDDEN}\r\n0\r\ncontent-length: 0\r\n\r\n"), ONE),
        (format!("0x{size}\r\n{HIDDEN}\r\n0\r\n\r\n"), CLOSED),
        (format!("+{size}\r\n{HIDDEN}\r\n0\r\n\r\n"), CLOSED),
        (format!("-{size}\r\n{HIDDEN}\r\n0\r\n\r\n"), CLOSED),
        (format!(" {size}\r\n{HIDDEN}\r\n0\r\n\r\n"), CLOSED),
        (format!("{size};x\ny\r\n{HIDDEN}\r\n0\r\n\r\n"), CLOSED),
        (format!("{size}\n{HIDDEN}\n0\n\n"), CLOSED),
        (format!("{size}\r\n{HIDDEN}0\r\n\r\n"), CLOSED),
        (format!("{size}\r\n{HIDDEN}\n0\r\n\r\n"), CLOSED),
        (format!("{size}\r\n{HIDDEN}xx0\r\n\r\n"), CLOSED),
        (format!("10000000000000000{size}\r\n{HIDDEN}\r\n0\r\n\r\n"), CLOSED),
        (format!("\r\n{HIDDEN}\r\n0\r\n\r\n"), CLOSED),
        (format!("0\r\n{HIDDEN}"), CLOSED),
        (format!("0\n\n{HIDDEN}"), CLOSED),
    ] {
        check(&mesh, "HTTP/1.1", "transfer-encoding: chunked\r\n", &body, expected).await;
    }
    mesh.end().await;
}
