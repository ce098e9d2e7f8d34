//! Whose configuration a file is.

use std::fmt;
use std::path::Path;

use clap::ValueEnum;

/// A forwarder whose configuration can be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// nginx.conf, its `stream` block
    Nginx,
    /// haproxy.cfg, `mode tcp`
    Haproxy,
    /// realm.toml or realm.json
    Realm,
    /// rinetd.conf
    Rinetd,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Realm => "realm",
            Self::Rinetd => "rinetd",
        })
    }
}

impl Kind {
    /// By the name of the file, else by its beginning; none if neither tells.
    pub fn guess(path: &Path, beginning: &str) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let by_name = [
            ("nginx", Self::Nginx),
            ("haproxy", Self::Haproxy),
            ("realm", Self::Realm),
            ("rinetd", Self::Rinetd),
        ];
        if let Some((_, kind)) = by_name.into_iter().find(|(part, _)| name.contains(part)) {
            return Some(kind);
        }
        let extension = path
            .extension()
            .map(|e| e.to_string_lossy().to_ascii_lowercase());
        match extension.as_deref() {
            Some("cfg") => return Some(Self::Haproxy),
            Some("toml" | "json") => return Some(Self::Realm),
            _ => {}
        }
        by_beginning(beginning)
    }
}

/// The first word that only one of them has.
fn by_beginning(text: &str) -> Option<Kind> {
    text.lines().take(1000).find_map(|line| {
        let mut words = line.split_whitespace();
        match (words.next()?, words.next(), words.next()) {
            ("stream" | "events" | "http", Some("{"), _) => Some(Kind::Nginx),
            ("stream{" | "events{" | "http{" | "worker_processes" | "load_module", ..) => {
                Some(Kind::Nginx)
            }
            ("frontend" | "backend" | "listen" | "defaults", _, _) => Some(Kind::Haproxy),
            ("[[endpoints]]" | "\"endpoints\":", ..) => Some(Kind::Realm),
            (_, Some(port), Some(_))
                if port
                    .split('/')
                    .next()
                    .is_some_and(|port| port.parse::<u16>().is_ok())
                    && words.next().is_some() =>
            {
                Some(Kind::Rinetd)
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_name_then_by_the_first_telling_line() {
        let guess = |name: &str, text: &str| Kind::guess(Path::new(name), text);
        assert_eq!(guess("/etc/nginx/nginx.conf", ""), Some(Kind::Nginx));
        assert_eq!(guess("lb.cfg", ""), Some(Kind::Haproxy));
        assert_eq!(guess("x.json", ""), Some(Kind::Realm));
        assert_eq!(guess("x", "# no\nstream {\n"), Some(Kind::Nginx));
        assert_eq!(
            guess("x", "global\n  daemon\ndefaults\n"),
            Some(Kind::Haproxy)
        );
        assert_eq!(guess("x", "0.0.0.0 80 10.0.0.1 80\n"), Some(Kind::Rinetd));
        assert_eq!(
            guess("x", "0.0.0.0 53/udp 10.0.0.1 53/udp\n"),
            Some(Kind::Rinetd)
        );
        assert_eq!(guess("x", "hello world\n"), None);
    }
}
