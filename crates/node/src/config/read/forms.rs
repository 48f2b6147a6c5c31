//! The forms that texts of a configuration have: hosts, addresses, sockets, packages, names.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use http::Uri;

/// Longest path of a unix socket, in bytes. Source: `sun_path` of unix(7) is 108 with its end.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Longest name of a package or of what OPA is asked, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// An address to listen on. Names are not resolved, because what they mean can change.
pub(super) fn listen_host(text: &str) -> Result<IpAddr, &'static str> {
    if text == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    text.parse().map_err(|_| "a host to listen on is an IP address or `localhost`")
}

/// The path of a unix socket, plain as in the seed or as SPIFFE's `unix://` URI.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, String> {
    let path = match text.split_once(':') {
        Some(("unix", rest)) => rest.strip_prefix("//").unwrap_or(rest),
        Some((scheme, rest)) if rest.starts_with("//") => {
            return Err(format!("only unix sockets carry the Workload API here, not {scheme}"));
        }
        _ => text,
    };
    if !path.starts_with('/') {
        return Err("a socket's path begins with `/`".to_owned());
    }
    if path.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!("a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes"));
    }
    if path.chars().any(char::is_control) {
        return Err("it has a control character".to_owned());
    }
    Ok(PathBuf::from(path))
}

/// The `https` URL of an agent: host, port if not 443, and a path if it has one.
pub(super) fn https_address(text: &str) -> Result<String, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "an address is a URL")?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") => return Err("agents speak mutual TLS; write `https://`"),
        _ => return Err("an address begins with `https://`"),
    }
    check_url(text, &uri)?;
    Ok(text.to_owned())
}

/// As [`https_address`], or `HOST:PORT` as the seed's other tutorials have it.
pub(super) fn advertise_address(text: &str) -> Result<String, &'static str> {
    match text.parse::<Uri>() {
        Ok(uri) if uri.scheme().is_none() && uri.port_u16().is_some() => {
            https_address(&format!("https://{text}"))
        }
        _ => https_address(text),
    }
}

/// The URL of a server that is no agent. Plain `http` is for this machine alone, because what is
/// asked there, and what it answers, decides.
pub(super) fn server_url(text: &str) -> Result<String, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "it is no URL")?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if is_loopback(&uri) => {}
        Some("http") => return Err("plain `http` is for this machine alone; write `https://`"),
        _ => return Err("it begins with `http://` or `https://`"),
    }
    check_url(text, &uri)?;
    Ok(text.trim_end_matches('/').to_owned())
}

/// The URL of a collector; without a scheme it is `http`, as in the seed's other tutorials. That of
/// plain `http` names its port: collectors do not listen at 80, which the URL would mean.
pub(super) fn collector_url(text: &str) -> Result<String, &'static str> {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = text.parse().map_err(|_| "it is no URL")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("it begins with `http://` or `https://`");
    }
    check_url(&text, &uri)?;
    if uri.scheme_str() == Some("http") && uri.port_u16().is_none() {
        return Err("it names no port; OTLP over gRPC is usually at 4317, as in localhost:4317");
    }
    Ok(text)
}

/// Whether `text` is a plain `http` URL to another machine.
pub(super) fn is_plain_and_remote(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("http") && !is_loopback(&uri))
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn check_url(text: &str, uri: &Uri) -> Result<(), &'static str> {
    let authority = uri.authority().ok_or("an address has a host")?;
    if authority.as_str().contains('@') {
        return Err("an address has no user");
    }
    if authority.host().is_empty() {
        return Err("an address has a host");
    }
    if authority.as_str() != authority.host() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err("the port of an address is a number from 1 to 65535");
    }
    if uri.query().is_some() || text.contains('#') {
        return Err("an address has no query and no fragment");
    }
    Ok(())
}

/// A Rego package: names with dots between them.
pub(super) fn package(text: &str) -> Result<String, &'static str> {
    if text.len() <= NAME_BYTES_MAX && text.split('.').all(is_name) && !text.starts_with("data.") {
        Ok(text.to_owned())
    } else {
        Err("a package is names with dots between them, without `data`, as in agentweave.authz")
    }
}

/// What an OPA server is asked below `/v1/data/`: names with slashes between them.
pub(super) fn opa_path(text: &str) -> Result<String, &'static str> {
    let path = text.trim_matches('/');
    let path = path.strip_prefix("v1/data/").unwrap_or(path);
    let is_segment = |name: &str| {
        !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
            && !name.starts_with('.')
    };
    if path.len() <= NAME_BYTES_MAX && path.split('/').all(is_segment) {
        Ok(path.to_owned())
    } else {
        Err("a path is names with slashes between them, as in agentweave/authz")
    }
}

/// The path of a page of the metrics listener.
pub(super) fn page_path(text: &str) -> Result<String, &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-' | '.');
    if !text.starts_with('/') || !text.chars().all(is_plain) || text.len() > NAME_BYTES_MAX {
        Err("a path begins with `/` and has letters, digits, `_`, `-`, `.` and `/`")
    } else if text == "/" || text.starts_with("/health") {
        Err("that path is not for metrics; use one such as `/metrics`")
    } else {
        Ok(text.to_owned())
    }
}

/// The name of an environment variable. What is none is not repeated, since it may be the secret
/// itself.
pub(super) fn is_variable_name(text: &str) -> bool {
    is_name(text) && text.len() <= NAME_BYTES_MAX
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
