//! What a client says of itself (Basic credentials, RFC 7617).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::proto::prelude::Authorization;

/// Bytes of a user's name and of a password at the most; glibc's crypt(3) takes 512 too.
pub(super) const USER_MAX: usize = 256;

pub(super) const PASSWORD_MAX: usize = 512;

/// What a client says of itself.
#[derive(Clone)]
pub(in crate::control) struct Credentials {
    pub(super) user: String,
    pub(super) password: Vec<u8>,
}

impl Credentials {
    /// `None` if these are no Basic credentials, or too long to be any: what a hash
    /// costs grows with the password. A user is UTF-8, as a 407 asks for.
    pub(in crate::control) fn of(authorization: &Authorization) -> Option<Self> {
        let decoded = STANDARD.decode(authorization.basic()?).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        if colon > USER_MAX || decoded.len() - colon - 1 > PASSWORD_MAX {
            return None;
        }
        // RFC 7617, section 2: neither has a control character. A NUL would end the
        // password for some hashes, and not for others.
        let password = &decoded[colon + 1..];
        if password.iter().any(u8::is_ascii_control) {
            return None;
        }
        Some(Self {
            user: String::from_utf8(decoded[..colon].to_vec()).ok()?,
            password: password.to_vec(),
        })
    }

    pub(in crate::control) fn user(&self) -> &str {
        &self.user
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?}, …)", self.user)
    }
}
