//! Headers whose values are nobody's business.

/// Names in lower case, as HTTP/2 has them.
const SECRET: [&[u8]; 4] = [
    b"authorization",
    b"proxy-authorization",
    b"cookie",
    b"set-cookie",
];

/// Whether the value of a header of this name is masked; blanks around the name and
/// its case do not matter.
pub fn is_secret_header(name: &[u8]) -> bool {
    let name = name.trim_ascii();
    SECRET
        .iter()
        .any(|secret| name.eq_ignore_ascii_case(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_in_any_case() {
        for name in [
            "Authorization",
            "COOKIE",
            "set-cookie",
            " proxy-authorization ",
        ] {
            assert!(is_secret_header(name.as_bytes()), "{name}");
        }
        for name in ["", "Cookies", "x-authorization", "host"] {
            assert!(!is_secret_header(name.as_bytes()), "{name}");
        }
    }
}
