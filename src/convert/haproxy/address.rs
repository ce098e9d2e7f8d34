//! Addresses as HAProxy writes them (section 11 of its manual), as ours.

/// Of a `bind`, each of a list with commas. `both` and `six` are `v4v6` and `v6only`.
pub(super) fn listeners(text: &str, both: bool) -> Result<Vec<String>, &'static str> {
    text.split(',').map(|one| listener(one, both)).collect()
}

fn listener(text: &str, both: bool) -> Result<String, &'static str> {
    if let Some(unix) = unix(text) {
        return unix;
    }
    let (family, rest) = family(text)?;
    let (host, port) = rest.rsplit_once(':').ok_or("no port")?;
    Ok(match (host.trim_matches(['[', ']']), family) {
        ("" | "*" | "0.0.0.0", Family::Four | Family::Any) => format!("0.0.0.0:{port}"),
        ("" | "*" | "::", Family::Six) | ("::", Family::Any) if both => format!(":{port}"),
        ("" | "*" | "::", Family::Six) | ("::", Family::Any) => format!("[::]:{port}"),
        (host, _) if host.contains(':') => format!("[{host}]:{port}"),
        (host, _) => format!("{host}:{port}"),
    })
}

/// Of a `server`; without a port it has that of the only listener.
pub(super) fn server(text: &str, port: Option<&str>) -> Result<String, &'static str> {
    if let Some(unix) = unix(text) {
        return unix;
    }
    let (_, rest) = family(text)?;
    let bare_six = rest.parse::<std::net::Ipv6Addr>().is_ok() && port.is_some();
    let (host, own) = match rest.rsplit_once(':') {
        Some((host, own)) if !bare_six && !rest.ends_with(']') => (host, Some(own)),
        _ => (rest, None),
    };
    let port = match own {
        Some(own) if own.starts_with(['+', '-']) => {
            return Err("ports that are moved by a distance");
        }
        Some(own) => own,
        None => port.ok_or("it has no port, and there is not just one listener")?,
    };
    let host = host.trim_matches(['[', ']']);
    if host.contains(':') {
        Ok(format!("[{host}]:{port}"))
    } else {
        Ok(format!("{host}:{port}"))
    }
}

#[derive(Clone, Copy)]
enum Family {
    Any,
    Four,
    Six,
}

fn family(text: &str) -> Result<(Family, &str), &'static str> {
    let text = text.strip_prefix("tcp@").unwrap_or(text);
    for (prefix, family) in [
        ("ipv4@", Family::Four),
        ("tcp4@", Family::Four),
        ("ipv6@", Family::Six),
        ("tcp6@", Family::Six),
    ] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return Ok((family, rest));
        }
    }
    if text.contains('@') {
        Err("of such addresses there are none here")
    } else {
        Ok((Family::Any, text))
    }
}

fn unix(text: &str) -> Option<Result<String, &'static str>> {
    if text.starts_with('/') {
        return Some(Ok(format!("unix:{text}")));
    }
    if let Some(path) = text.strip_prefix("unix@") {
        return Some(if path.starts_with('/') {
            Ok(format!("unix:{path}"))
        } else {
            Err("its path is relative to `unix-bind`")
        });
    }
    text.strip_prefix("abns@")
        .map(|name| Ok(format!("unix:@{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_addresses() {
        let listen = |text| listeners(text, false).map(|all| all.join(" "));
        assert_eq!(listen(":443,*:80").as_deref(), Ok("0.0.0.0:443 0.0.0.0:80"));
        assert_eq!(listen(":::443").as_deref(), Ok("[::]:443"));
        assert_eq!(
            listeners(":::443", true)
                .map(|all| all.join(" "))
                .as_deref(),
            Ok(":443")
        );
        assert_eq!(listen("[::1]:443").as_deref(), Ok("[::1]:443"));
        assert_eq!(listen("::1:443").as_deref(), Ok("[::1]:443"));
        assert_eq!(listen("ipv6@:443").as_deref(), Ok("[::]:443"));
        assert_eq!(listen("/run/a.sock").as_deref(), Ok("unix:/run/a.sock"));
        assert_eq!(listen("abns@a").as_deref(), Ok("unix:@a"));
        assert_eq!(
            listen("10.0.0.1:5000-5009").as_deref(),
            Ok("10.0.0.1:5000-5009")
        );
        assert!(listen("fd@3").is_err());
        assert!(listen("443").is_err());
        assert_eq!(server("10.0.0.1:80", None).as_deref(), Ok("10.0.0.1:80"));
        assert_eq!(server("10.0.0.1", Some("81")).as_deref(), Ok("10.0.0.1:81"));
        assert_eq!(server("fe80::1", Some("81")).as_deref(), Ok("[fe80::1]:81"));
        assert_eq!(server("fe80::1:80", None).as_deref(), Ok("[fe80::1]:80"));
        assert!(server("10.0.0.1", None).is_err());
        assert!(server("10.0.0.1:+80", None).is_err());
    }
}
