//! Where to call: a URL, read strictly, and who it came from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use convoke_model::limits::ADDRESS_BYTES_MAX;
use http::HeaderValue;
use http::uri::PathAndQuery;
use rustls_pki_types::{DnsName, ServerName};

/// Who an address came from. There is no way from `Peer` to `Operator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provenance {
    /// Configuration or the command line; it may lead anywhere, also into a private network.
    Operator,
    /// A card, a message or a registration. Nothing is dialled for these yet: the rules that keep
    /// a peer from steering us into the network around us come as a whole or not at all.
    Peer,
}

/// The address of an agent, such as `https://localhost:8444`, read strictly: no user, no query, no
/// fragment, no spelling of a host or a port that another reader could take for something else.
/// Cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Arc<Inner>);

#[derive(PartialEq, Eq)]
struct Inner {
    provenance: Provenance,
    https: bool,
    host: Host,
    port: u16,
    path: PathAndQuery,
    host_header: HeaderValue,
}

#[derive(PartialEq, Eq)]
enum Host {
    Name(DnsName<'static>),
    Ip(IpAddr),
}

/// What is wrong with an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Longer than we accept.
    #[error("address is longer than {max} bytes")]
    TooLong {
        /// The bound, in bytes.
        max: usize,
    },
    /// A space, a control character, a backslash or something outside ASCII.
    #[error("address holds the character {0:?}, which no address has")]
    Character(char),
    /// No `https://` in front.
    #[error("address `{0}` does not begin with https://")]
    Scheme(String),
    /// `http://` where only `https://` is allowed.
    #[error("address `{0}` is plain http; use https://")]
    Plaintext(String),
    /// A user name or password.
    #[error("address holds a user name before `@`; remove it")]
    User,
    /// A `?` or a `#`.
    #[error("address has a query or a fragment; remove everything from `{0}` on")]
    QueryOrFragment(char),
    /// Neither a host name nor an IP address.
    #[error("`{0}` is neither a host name nor an ip address")]
    Host(String),
    /// Not a number from 1 to 65535.
    #[error("`{0}` is not a port; use a number from 1 to 65535")]
    Port(String),
    /// Not a path of a URL.
    #[error("`{0}` is not a path")]
    Path(String),
}

impl Address {
    /// Parses an `https://` address.
    ///
    /// # Errors
    ///
    /// The first rule that `text` breaks.
    pub fn parse(text: &str, provenance: Provenance) -> Result<Self, AddressError> {
        let address = Self::parse_with_http(text, provenance)?;
        if address.is_https() { Ok(address) } else { Err(AddressError::Plaintext(text.to_owned())) }
    }

    /// As [`Self::parse`], and `http://` is allowed, which proves no identity and hides nothing:
    /// for development listeners alone.
    ///
    /// # Errors
    ///
    /// The first rule that `text` breaks.
    pub fn parse_with_http(text: &str, provenance: Provenance) -> Result<Self, AddressError> {
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(AddressError::TooLong { max: ADDRESS_BYTES_MAX });
        }
        if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic() || *c == '\\') {
            return Err(AddressError::Character(bad));
        }
        let (https, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(AddressError::Scheme(text.to_owned())),
        };
        if let Some(mark) = rest.chars().find(|c| matches!(c, '?' | '#')) {
            return Err(AddressError::QueryOrFragment(mark));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(AddressError::User);
        }
        let (host, port) = split_port(authority)?;
        let port = match port {
            None => default_port(https),
            Some(port) => parse_port(port)?,
        };
        let host = Host::parse(host)?;
        let path = if path.is_empty() {
            PathAndQuery::from_static("/")
        } else {
            PathAndQuery::try_from(path).map_err(|_| AddressError::Path(path.to_owned()))?
        };
        let shown =
            if port == default_port(https) { host.to_string() } else { format!("{host}:{port}") };
        let host_header =
            HeaderValue::try_from(&shown).map_err(|_| AddressError::Host(shown.clone()))?;
        Ok(Self(Arc::new(Inner { provenance, https, host, port, path, host_header })))
    }

    /// Who it came from.
    #[must_use]
    pub fn provenance(&self) -> Provenance {
        self.0.provenance
    }

    /// Whether it is called over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.https
    }

    /// The host as it is resolved: a name in lower case, or an IP address without brackets.
    #[must_use]
    pub fn host(&self) -> String {
        match &self.0.host {
            Host::Name(name) => name.as_ref().to_owned(),
            Host::Ip(ip) => ip.to_string(),
        }
    }

    /// The port, the scheme's own if none is written.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// The path, `/` if none is written.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.path.path()
    }

    /// The host as an IP address, if it is one.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        match self.0.host {
            Host::Name(_) => None,
            Host::Ip(ip) => Some(ip),
        }
    }

    /// The host as TLS names it.
    pub(super) fn server_name(&self) -> ServerName<'static> {
        match &self.0.host {
            Host::Name(name) => ServerName::DnsName(name.clone()),
            Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
        }
    }

    /// The value of the `host` header; equal values of one scheme mean the same place.
    pub(super) fn host_header(&self) -> &HeaderValue {
        &self.0.host_header
    }

    /// The path as a request line has it.
    pub(super) fn request_path(&self) -> &PathAndQuery {
        &self.0.path
    }
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), AddressError> {
    let wrong = || AddressError::Host(authority.to_owned());
    if authority.starts_with('[') {
        let end = authority.find(']').ok_or_else(wrong)?;
        return match authority[end + 1..].strip_prefix(':') {
            Some(port) => Ok((&authority[..=end], Some(port))),
            None if end + 1 == authority.len() => Ok((authority, None)),
            None => Err(wrong()),
        };
    }
    Ok(authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))))
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let wrong = || AddressError::Port(text.to_owned());
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    text.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)
}

impl Host {
    fn parse(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Host(text.to_owned());
        if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            return inner.parse::<Ipv6Addr>().map(|ip| Self::Ip(ip.into())).map_err(|_| wrong());
        }
        let last = text.rsplit('.').next().unwrap_or(text);
        // Resolvers read `127.1`, `2130706433` and `0x7f.1` as IPv4 addresses; a name whose last
        // label looks like a number has to be an address in its one spelling.
        if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") {
            return text.parse::<Ipv4Addr>().map(|ip| Self::Ip(ip.into())).map_err(|_| wrong());
        }
        if text.ends_with('.') {
            return Err(wrong());
        }
        DnsName::try_from(text.to_ascii_lowercase()).map(Self::Name).map_err(|_| wrong())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name.as_ref()),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

/// Scheme, host and port; the path only if there is one.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        let scheme = if inner.https { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", inner.host, inner.port)?;
        if inner.path.path() == "/" { Ok(()) } else { f.write_str(inner.path.path()) }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: Result<&str, AddressError>) {
        let parsed = Address::parse(input, Provenance::Operator).map(|it| it.to_string());
        assert_eq!(parsed, expected.map(str::to_owned), "{input}");
    }

    #[test]
    fn parses_strictly() {
        use AddressError as E;
        check("https://localhost:8444", Ok("https://localhost:8444"));
        check("https://localhost:8444/", Ok("https://localhost:8444"));
        check("https://Agent-1.example.org", Ok("https://agent-1.example.org:443"));
        check("https://my_agent:1/a2a/v1", Ok("https://my_agent:1/a2a/v1"));
        check("https://127.0.0.1:65535", Ok("https://127.0.0.1:65535"));
        check("https://[::1]:8444/x", Ok("https://[::1]:8444/x"));
        check("https://[::1]", Ok("https://[::1]:443"));
        check("http://localhost", Err(E::Plaintext("http://localhost".into())));
        check("HTTPS://localhost", Err(E::Scheme("HTTPS://localhost".into())));
        check("localhost:8444", Err(E::Scheme("localhost:8444".into())));
        check("ftp://localhost", Err(E::Scheme("ftp://localhost".into())));
        check("https://user:secret@localhost", Err(E::User));
        check("https://localhost@evil/", Err(E::User));
        check("https://localhost/?a=b", Err(E::QueryOrFragment('?')));
        check("https://localhost#a", Err(E::QueryOrFragment('#')));
        check("https://local host", Err(E::Character(' ')));
        check("https://localhost\r\nx: y", Err(E::Character('\r')));
        check("https://localhost\\@evil", Err(E::Character('\\')));
        check("https://exämple.org", Err(E::Character('ä')));
        for host in [
            "",
            ".",
            "a.",
            ".a",
            "127.1",
            "2130706433",
            "0x7f.0x1",
            "1.2.3.04",
            "a..b",
            "-a",
            "%61",
        ] {
            check(&format!("https://{host}"), Err(E::Host(host.into())));
        }
        check("https://[::1", Err(E::Host("[::1".into())));
        check("https://[::1]x", Err(E::Host("[::1]x".into())));
        check("https://[fe80::1%eth0]", Err(E::Host("[fe80::1%eth0]".into())));
        for port in ["", "0", "65536", "+1", "8444:1", "-1", "0x1"] {
            check(&format!("https://a:{port}"), Err(E::Port(port.into())));
        }
        let long = format!("https://a/{}", "a".repeat(ADDRESS_BYTES_MAX));
        check(&long, Err(E::TooLong { max: ADDRESS_BYTES_MAX }));
    }

    #[test]
    fn http_is_there_for_who_asks() {
        let address = Address::parse_with_http("http://[::1]:8080", Provenance::Operator).unwrap();
        assert!(!address.is_https());
        assert_eq!(address.host(), "::1");
        assert_eq!(address.host_header(), "[::1]:8080");
    }
}
