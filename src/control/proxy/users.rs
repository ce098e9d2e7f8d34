//! Who may ask: a file of users and the hashes of their passwords, and what clients
//! say of themselves (Basic credentials, RFC 7617).
//!
//! A line of the file is `USER:HASH`, as `htpasswd -B` writes it; blank lines and those
//! that begin with `#` are left out. Hashes are bcrypt (`$2y$`, `$2b$`, `$2a$`:
//! `htpasswd -nB USER`) or SHA-crypt (`$6$`, `$5$`: `openssl passwd -6`). Anything
//! else, a plain password above all, is an error at the start.
//!
//! Credentials that were right are remembered for five minutes, by a hash with a key
//! that nobody knows: a client that opens a hundred tunnels costs one slow hash. What
//! was wrong is not remembered. Passwords are compared by the libraries of the hashes,
//! in constant time; a user that there is not costs as much as a wrong password.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcrypt::HashParts;
use sha_crypt::{PasswordHash, PasswordVerifier, ShaCrypt};
use thiserror::Error;

use crate::proto::prelude::Authorization;

/// Bytes of a file of users.
const FILE_MAX: u64 = 4 << 20;

/// The highest cost of a bcrypt hash: four seconds for one verification, on a machine
/// where the usual 10 takes 60 ms.
const BCRYPT_COST_MAX: u32 = 16;

/// The most rounds of a SHA-crypt hash: about a second; 5000 are usual.
const SHA_ROUNDS_MAX: u32 = 1_000_000;

/// How long right credentials are remembered.
const MEMORY: Duration = Duration::from_secs(300);

/// How many are.
const REMEMBERED_MAX: usize = 4096;

/// What is wrong with a file of users.
#[derive(Debug, Error)]
pub enum UsersError {
    /// It cannot be read.
    #[error("cannot read users from {path}: {error}; check the path and its mode")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A line of it makes no sense.
    #[error("{path}, line {line}: {problem}; write USER:HASH, as `htpasswd -nB USER` does")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// Nobody is in it.
    #[error(
        "{path} has no user: nobody could use this forward; add USER:HASH, as `htpasswd -nB USER` writes it"
    )]
    Nobody {
        /// Which file.
        path: PathBuf,
    },
}

/// Bytes of a user's name and of a password at the most; glibc's crypt(3) takes 512 too.
const USER_MAX: usize = 256;
const PASSWORD_MAX: usize = 512;

/// What a client says of itself.
#[derive(Clone)]
pub(super) struct Credentials {
    user: String,
    password: Vec<u8>,
}

impl Credentials {
    /// `None` if these are no Basic credentials, or too long to be any: what a hash
    /// costs grows with the password. A user is UTF-8, as a 407 asks for.
    pub(super) fn of(authorization: &Authorization) -> Option<Self> {
        let decoded = STANDARD.decode(authorization.basic()?).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        if colon > USER_MAX || decoded.len() - colon - 1 > PASSWORD_MAX {
            return None;
        }
        Some(Self {
            user: String::from_utf8(decoded[..colon].to_vec()).ok()?,
            password: decoded[colon + 1..].to_vec(),
        })
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?}, …)", self.user)
    }
}

/// The hash of a password, in the form of crypt(5).
#[derive(Clone)]
enum Hash {
    Bcrypt(String),
    Sha(PasswordHash),
}

impl Hash {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if ["$2a$", "$2b$", "$2y$"]
            .iter()
            .any(|it| text.starts_with(it))
        {
            let parts: HashParts = text.parse().map_err(|_| "the bcrypt hash is malformed")?;
            return if parts.get_cost() > BCRYPT_COST_MAX {
                Err("the cost of the bcrypt hash is above 16: each verification would take seconds")
            } else {
                Ok(Self::Bcrypt(text.to_owned()))
            };
        }
        if text.starts_with("$5$") || text.starts_with("$6$") {
            let rounds = text[3..].strip_prefix("rounds=");
            let rounds = rounds.and_then(|rest| rest.split('$').next());
            if rounds.is_some_and(|n| n.parse().is_ok_and(|n: u32| n > SHA_ROUNDS_MAX)) {
                return Err("the SHA-crypt hash has more than a million rounds");
            }
            let hash = PasswordHash::new(text).map_err(|_| "the SHA-crypt hash is malformed")?;
            return Ok(Self::Sha(hash));
        }
        Err("this is no bcrypt ($2y$) or SHA-crypt ($6$) hash")
    }

    fn is_of(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Sha(hash) => ShaCrypt::default().verify_password(password, hash).is_ok(),
        }
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(…)")
    }
}

/// The users of a file.
#[derive(Debug)]
pub(super) struct Users {
    hashes: HashMap<String, Hash>,
    /// What the password of a user is held against that there is not.
    decoy: Hash,
    /// The keys of two 64-bit hashes, which together no chance collides.
    keys: [RandomState; 2],
    right: Mutex<HashMap<[u64; 2], Instant>>,
}

impl Users {
    pub(super) fn read(path: &Path) -> Result<Self, UsersError> {
        let unread = |error| UsersError::Read {
            path: path.to_owned(),
            error,
        };
        let file = std::fs::File::open(path).map_err(unread)?;
        let mut text = String::new();
        // Bounded, whatever the path leads to.
        file.take(FILE_MAX)
            .read_to_string(&mut text)
            .map_err(unread)?;
        Self::parse(&text).map_err(|wrong| match wrong {
            Some((line, problem)) => UsersError::Line {
                path: path.to_owned(),
                line,
                problem,
            },
            None => UsersError::Nobody {
                path: path.to_owned(),
            },
        })
    }

    /// `Err(None)`: there is no user.
    fn parse(text: &str) -> Result<Self, Option<(usize, &'static str)>> {
        let mut hashes = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |problem| Some((index + 1, problem));
            let (user, hash) = line.split_once(':').ok_or(wrong("there is no colon"))?;
            if user.is_empty() || user.chars().any(char::is_control) {
                return Err(wrong("there is no user before the colon"));
            }
            let hash = Hash::parse(hash).map_err(wrong)?;
            if hashes.insert(user.to_owned(), hash).is_some() {
                return Err(wrong("this user stands in the file twice"));
            }
        }
        let decoy = hashes.values().next().cloned().ok_or(None)?;
        Ok(Self {
            hashes,
            decoy,
            keys: [RandomState::new(), RandomState::new()],
            right: Mutex::new(HashMap::new()),
        })
    }

    /// Whether these were right a short time ago. Quick.
    pub(super) fn remembers(&self, credentials: &Credentials) -> bool {
        let until = self.remembered().get(&self.digest(credentials)).copied();
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether these are right. Takes as long as the hash does.
    pub(super) fn verify(&self, credentials: &Credentials) -> bool {
        let known = self.hashes.get(&credentials.user);
        let fits = known.unwrap_or(&self.decoy).is_of(&credentials.password);
        let right = fits && known.is_some();
        if right {
            let now = Instant::now();
            let mut remembered = self.remembered();
            if remembered.len() >= REMEMBERED_MAX {
                remembered.retain(|_, until| now < *until);
            }
            if remembered.len() < REMEMBERED_MAX {
                remembered.insert(self.digest(credentials), now + MEMORY);
            }
        }
        right
    }

    fn digest(&self, credentials: &Credentials) -> [u64; 2] {
        let Credentials { user, password } = credentials;
        self.keys
            .each_ref()
            .map(|key| key.hash_one((user, password)))
    }

    /// Whoever panicked while it held the lock left whole entries behind.
    fn remembered(&self) -> MutexGuard<'_, HashMap<[u64; 2], Instant>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::connect::{Parse, Reader, Settings};

    /// `openssl passwd -6 -salt saltsalt secret`, and `-5`.
    const HASHES: [&str; 2] = [
        "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
        "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
    ];

    fn users() -> Users {
        let bcrypt = bcrypt::hash_with_salt("secret", 4, [7; 16]).expect("a hash");
        let bcrypt = bcrypt.format_for_version(bcrypt::Version::TwoY);
        let text = format!(
            "# comment\n\nsix:{}\nfive:{}\nbee:{bcrypt}\n",
            HASHES[0], HASHES[1]
        );
        Users::parse(&text).expect("a file")
    }

    fn credentials(user: &str, password: &str) -> Credentials {
        Credentials {
            user: user.to_owned(),
            password: password.as_bytes().to_vec(),
        }
    }

    #[test]
    fn b57_passwords_are_verified_by_their_hash_and_then_remembered() {
        let users = users();
        for user in ["six", "five", "bee"] {
            let right = credentials(user, "secret");
            assert!(!users.remembers(&right));
            for wrong in [credentials(user, "Secret"), credentials(user, "")] {
                assert!(!users.verify(&wrong));
                assert!(!users.remembers(&wrong));
            }
            assert!(users.verify(&right), "{user}");
            assert!(users.remembers(&right));
        }
        assert!(!users.verify(&credentials("nobody", "secret")));
        assert!(!users.remembers(&credentials("nobody", "secret")));
        let shown = format!("{users:?}{:?}", credentials("six", "hush"));
        assert!(!shown.contains("$6$") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn a_file_says_what_is_wrong_with_it() {
        for (text, line) in [
            ("", None),
            ("# nobody\n", None),
            ("a\n", Some(1)),
            ("\na:secret\n", Some(2)),
            (":$6$x$y", Some(1)),
            ("a:$2y$10$short", Some(1)),
            (
                "a:$2y$31$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
                Some(1),
            ),
            ("a:$6$rounds=999999999$saltsalt$x", Some(1)),
            ("a:$apr1$x$y", Some(1)),
            ("a:{SHA}x", Some(1)),
        ] {
            let wrong = Users::parse(text).expect_err(text);
            assert_eq!(wrong.map(|(line, _)| line), line, "{text}");
        }
        let twice = format!("a:{0}\na:{0}", HASHES[0]);
        assert_eq!(
            Users::parse(&twice).expect_err("twice").map(|it| it.0),
            Some(2)
        );
    }

    #[test]
    fn credentials_are_a_user_a_colon_and_a_password() {
        let of = |value: &str| {
            let header = format!("CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: {value}\r\n\r\n");
            let mut reader = Reader::new(Settings {
                header_max: 4096,
                realm: "x".into(),
            });
            let Parse::Found { request, .. } = reader.read(header.as_bytes()) else {
                panic!("{value}")
            };
            let found = Credentials::of(&request.authorization.expect("a header"));
            found.map(|it| (it.user, String::from_utf8_lossy(&it.password).into_owned()))
        };
        let some = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(of("Basic YTpi"), some("a", "b"));
        assert_eq!(of("BASIC   YTpiOmM="), some("a", "b:c"));
        assert_eq!(of("Basic Og=="), some("", ""));
        for none in [
            "Basic YQ==",
            "Basic",
            "Basic !",
            "Bearer YTpi",
            "YTpi",
            "Basic /zpi",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
