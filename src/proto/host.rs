//! The form that the name of a host has, as a configuration, a client and DNS may
//! give it.

/// What is wrong with a text as the name of a host; `None`: nothing is.
///
/// A name has letters, digits, `-` and `_`, parts of 1 to 63 characters that do not
/// begin with `-`, 253 in all; one dot at the end is allowed. A last part that is a
/// number makes it a misspelt address (`127.1`, `0x7f.1`, `2130706433`): some
/// resolvers would take it for one, so it is never asked of any.
pub fn fault(host: &str) -> Option<&'static str> {
    let bare = host.strip_suffix('.').unwrap_or(host);
    if bare.is_empty() {
        return Some("it is empty");
    }
    if bare.len() > 253 {
        return Some("it is longer than 253 characters");
    }
    if !bare
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    {
        return Some("only letters, digits, `-`, `_` and `.` can stand in it");
    }
    if bare
        .split('.')
        .any(|part| part.is_empty() || part.len() > 63)
    {
        return Some("each part between dots has 1 to 63 characters");
    }
    if bare.split('.').any(|part| part.starts_with('-')) {
        return Some("a part cannot begin with `-`");
    }
    let last = bare.rsplit('.').next().unwrap_or(bare);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let numeric = match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => last.bytes().all(|byte| byte.is_ascii_digit()),
    };
    numeric.then_some("it looks like an IPv4 address, which has four numbers from 0 to 255")
}
