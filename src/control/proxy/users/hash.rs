//! The hash of a password, and what it costs to verify one.

use std::fmt;
use std::ops::RangeInclusive;

use bcrypt::HashParts;
use sha_crypt::{PasswordHash, PasswordVerifier, ShaCrypt};

/// The highest cost of a bcrypt hash: four seconds for one verification, on a machine
/// where the usual 10 takes 60 ms.
const BCRYPT_COST_MAX: u32 = 16;

/// The most rounds of a SHA-crypt hash: about a second; 5000 are usual.
const SHA_ROUNDS_MAX: u32 = 1_000_000;

/// What is said of a cost below or above at the start. OWASP's Password Storage Cheat Sheet
/// has 10 as the least for bcrypt; crypt(5) has 5000 rounds as the default.
const BCRYPT_COSTS: RangeInclusive<u32> = 10..=13;

const SHA_ROUNDS: RangeInclusive<u32> = 5000..=500_000;

/// What SHA-crypt has without `rounds=`.
const SHA_ROUNDS_DEFAULT: u32 = 5000;

/// Bytes of a password that bcrypt looks at: it would ignore what follows.
pub(super) const BCRYPT_PASSWORD_MAX: usize = 72;

/// The hash of a password, in the form of crypt(5).
#[derive(Clone)]
pub(super) enum Hash {
    Bcrypt(String, u32),
    Sha(PasswordHash, Class),
}

/// What a hash costs to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Bcrypt(u32),
    Sha256(u32),
    Sha512(u32),
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bcrypt(cost) => write!(f, "bcrypt of cost {cost}"),
            Self::Sha256(rounds) => write!(f, "SHA-256-crypt with {rounds} rounds"),
            Self::Sha512(rounds) => write!(f, "SHA-512-crypt with {rounds} rounds"),
        }
    }
}

impl Class {
    /// What should be said of it.
    pub(super) fn advice(self) -> Option<&'static str> {
        match self {
            Self::Bcrypt(cost) if cost < *BCRYPT_COSTS.start() => {
                Some("who gets hold of the file guesses fast; write them with `htpasswd -B -C 12`")
            }
            Self::Bcrypt(cost) if cost > *BCRYPT_COSTS.end() => {
                Some("each verification takes a large part of a second; 12 is enough")
            }
            Self::Sha256(rounds) | Self::Sha512(rounds) if rounds < *SHA_ROUNDS.start() => {
                Some("who gets hold of the file guesses fast; 5000 is the default")
            }
            Self::Sha256(rounds) | Self::Sha512(rounds) if rounds > *SHA_ROUNDS.end() => {
                Some("each verification takes a large part of a second")
            }
            _ => None,
        }
    }
}

impl Hash {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if ["$2a$", "$2b$", "$2y$"]
            .iter()
            .any(|it| text.starts_with(it))
        {
            let parts: HashParts = text.parse().map_err(|_| "the bcrypt hash is malformed")?;
            let cost = parts.get_cost();
            return if cost > BCRYPT_COST_MAX {
                Err("the cost of the bcrypt hash is above 16: each verification would take seconds")
            } else {
                Ok(Self::Bcrypt(text.to_owned(), cost))
            };
        }
        if text.starts_with("$5$") || text.starts_with("$6$") {
            let rounds = text[3..].strip_prefix("rounds=");
            let rounds = rounds.and_then(|rest| rest.split('$').next());
            let rounds = rounds.and_then(|n| n.parse().ok());
            let rounds = rounds.unwrap_or(SHA_ROUNDS_DEFAULT);
            if rounds > SHA_ROUNDS_MAX {
                return Err("the SHA-crypt hash has more than a million rounds");
            }
            let hash = PasswordHash::new(text).map_err(|_| "the SHA-crypt hash is malformed")?;
            let class = if text.starts_with("$5$") {
                Class::Sha256(rounds)
            } else {
                Class::Sha512(rounds)
            };
            return Ok(Self::Sha(hash, class));
        }
        Err("this is no bcrypt ($2y$) or SHA-crypt ($6$) hash")
    }

    pub(super) const fn class(&self) -> Class {
        match self {
            Self::Bcrypt(_, cost) => Class::Bcrypt(*cost),
            Self::Sha(_, class) => *class,
        }
    }

    pub(super) fn is_of(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(hash, _) => {
                // What it would ignore is refused, and takes as long; a NUL is what it has
                // behind every password.
                let looked_at = &password[..password.len().min(BCRYPT_PASSWORD_MAX)];
                let fits = bcrypt::verify(looked_at, hash).unwrap_or(false);
                fits && looked_at.len() == password.len() && !password.contains(&0)
            }
            Self::Sha(hash, _) => ShaCrypt::default().verify_password(password, hash).is_ok(),
        }
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(…)")
    }
}
