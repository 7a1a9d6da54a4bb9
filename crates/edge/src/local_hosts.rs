//! Under which hosts the edge answers beside the catalog's domains, for trying things out: those of its own listener.

use std::net::{IpAddr, SocketAddr};

use crate::request::Host;

/// The listener's own addresses.
#[derive(Debug, Default)]
pub(crate) struct LocalHosts {
    /// With port, and without where it is the scheme's own.
    names: Vec<String>,
    /// Any address of this machine, under any port: a container's is published under another one.
    any: bool,
}

impl LocalHosts {
    /// Those of a listener; `port` is the scheme's own, which clients leave out.
    pub(crate) fn of(listener: SocketAddr, port: u16) -> Self {
        let (ip, any) = (listener.ip(), listener.ip().is_unspecified());
        let bare = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let mut names = Vec::new();
        for name in [bare, "localhost".to_owned()] {
            names.push(format!("{name}:{}", listener.port()));
            if listener.port() == port {
                names.push(name);
            }
        }
        Self { names, any }
    }

    pub(crate) fn contains(&self, host: &Host<'_>) -> bool {
        self.has(host.name(), host.with_port())
    }

    fn has(&self, name: &str, with_port: &str) -> bool {
        if self.names.iter().any(|known| known == with_port) {
            return true;
        }
        let inner = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        self.any && (name == "localhost" || inner.unwrap_or(name).parse::<IpAddr>().is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_answers_under_each_of_its_addresses() {
        for (listener, port, host, expected) in [
            ("127.0.0.1:8080", 80, "127.0.0.1:8080", true),
            ("127.0.0.1:8080", 80, "localhost:8080", true),
            ("127.0.0.1:8080", 80, "127.0.0.1", false),
            ("127.0.0.1:8080", 80, "127.0.0.2:8080", false),
            ("127.0.0.1:80", 80, "127.0.0.1", true),
            ("127.0.0.1:80", 80, "localhost", true),
            ("127.0.0.1:80", 80, "localhost:80", true),
            ("127.0.0.1:443", 443, "localhost", true),
            ("127.0.0.1:80", 443, "localhost", false),
            ("[::1]:8080", 80, "[::1]:8080", true),
            ("[::1]:80", 80, "[::1]", true),
            ("0.0.0.0:8080", 80, "127.0.0.1:8080", true),
            ("0.0.0.0:8080", 80, "192.0.2.7:8080", true),
            ("0.0.0.0:8080", 80, "192.0.2.7:9000", true),
            ("0.0.0.0:8080", 80, "localhost:8080", true),
            ("0.0.0.0:80", 80, "localhost", true),
            ("[::]:8080", 80, "[2001:db8::7]:8080", true),
            ("0.0.0.0:8080", 80, "go.northpeak.example:8080", false),
            ("0.0.0.0:8080", 80, "localhost.example", false),
        ] {
            let hosts = LocalHosts::of(listener.parse().unwrap(), port);
            let name = match host.rsplit_once(':') {
                Some((name, port)) if !port.ends_with(']') => name,
                _ => host,
            };
            assert_eq!(hosts.has(name, host), expected, "{listener} {host}");
        }
        assert!(!LocalHosts::default().has("localhost", "localhost"));
    }
}
