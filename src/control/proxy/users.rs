//! Who may ask: a file of users and the hashes of their passwords, and what clients
//! say of themselves (Basic credentials, RFC 7617).
//!
//! A line of the file is `USER:HASH`, as `htpasswd -B` writes it; blank lines and those
//! that begin with `#` are left out. Hashes are bcrypt (`$2y$`, `$2b$`, `$2a$`:
//! `htpasswd -nB USER`) or SHA-crypt (`$6$`, `$5$`: `openssl passwd -6`). Anything
//! else, a plain password above all, is an error at the start.
//!
//! Credentials that were right are remembered for five minutes, those that were wrong for
//! half of one, by a hash with a key that nobody knows: a client that opens a hundred
//! tunnels, or asks again and again with an old password, costs one slow hash. Passwords are
//! compared by the libraries of the hashes, in constant time. Every verification computes one
//! hash of each kind and cost that the file has: whichever user is asked for, and one that
//! there is not, takes as long.

use std::collections::HashMap;
use std::fmt;
use std::fs::OpenOptions;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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

/// How long wrong ones are.
const WRONG_MEMORY: Duration = Duration::from_secs(30);

/// How many are, of either.
const REMEMBERED_MAX: usize = 4096;

/// Kinds and costs of hashes in a file: each verification computes one of each.
const CLASSES_MAX: usize = 8;

/// What is said of a cost below or above at the start. OWASP's Password Storage Cheat Sheet
/// has 10 as the least for bcrypt; crypt(5) has 5000 rounds as the default.
const BCRYPT_COSTS: RangeInclusive<u32> = 10..=13;
const SHA_ROUNDS: RangeInclusive<u32> = 5000..=500_000;

/// What SHA-crypt has without `rounds=`.
const SHA_ROUNDS_DEFAULT: u32 = 5000;

/// Bytes of a password that bcrypt looks at: it would ignore what follows.
const BCRYPT_PASSWORD_MAX: usize = 72;

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
    /// It is a device, a pipe, a directory.
    #[error("{path} is no file; users are read from one, so that a start never waits for them")]
    NoFile {
        /// Which it is.
        path: PathBuf,
    },
    /// Somebody else could add himself.
    #[error("{path} can be changed by {whom}: who can write it can let anybody in; {remedy}")]
    Writable {
        /// Which file.
        path: PathBuf,
        /// By whom.
        whom: String,
        /// What to do.
        remedy: &'static str,
    },
    /// It is larger than any file of users has to be.
    #[error("{path} has more than 4 MiB; split it, or name the right file")]
    TooLarge {
        /// Which file.
        path: PathBuf,
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
    Bcrypt(String, u32),
    Sha(PasswordHash, Class),
}

/// What a hash costs to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
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
    fn advice(self) -> Option<&'static str> {
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
    fn parse(text: &str) -> Result<Self, &'static str> {
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

    const fn class(&self) -> Class {
        match self {
            Self::Bcrypt(_, cost) => Class::Bcrypt(*cost),
            Self::Sha(_, class) => *class,
        }
    }

    fn is_of(&self, password: &[u8]) -> bool {
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

/// How many users the text of a file has; else the line that is wrong and why, or `None`
/// if there is nobody. For whoever checks such a file, and for fuzzers.
pub fn check(text: &str) -> Result<usize, Option<(usize, &'static str)>> {
    Users::parse(text).map(|users| users.hashes.len())
}

/// The users of a file.
#[derive(Debug)]
pub(super) struct Users {
    hashes: HashMap<String, Hash>,
    /// One of each kind and cost, which a password is held against whose user has another.
    decoys: Vec<Hash>,
    /// The keys of two 64-bit hashes, which together no chance collides.
    keys: [RandomState; 2],
    remembered: Mutex<Memory>,
}

/// Until when it is remembered that credentials are right, and that they are wrong.
#[derive(Debug, Default)]
struct Memory {
    right: HashMap<[u64; 2], Instant>,
    wrong: HashMap<[u64; 2], Instant>,
}

impl Users {
    pub(super) fn read(path: &Path) -> Result<Self, UsersError> {
        let text = read(path)?;
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
        let mut decoys: Vec<Hash> = Vec::new();
        // Editors of Windows begin a file with a mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
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
            if decoys.iter().all(|decoy| decoy.class() != hash.class()) {
                if decoys.len() == CLASSES_MAX {
                    return Err(wrong(
                        "this is the ninth kind of hash, and each verification computes one of \
                         each; use one kind and one cost",
                    ));
                }
                decoys.push(hash.clone());
            }
            if hashes.insert(user.to_owned(), hash).is_some() {
                return Err(wrong("this user stands in the file twice"));
            }
        }
        if hashes.is_empty() {
            return Err(None);
        }
        decoys.sort_by_key(Hash::class);
        Ok(Self {
            hashes,
            decoys,
            keys: [RandomState::new(), RandomState::new()],
            remembered: Mutex::default(),
        })
    }

    /// What whoever operates it should know of the hashes.
    pub(super) fn advice(&self) -> Vec<String> {
        let classes = self.decoys.iter().map(Hash::class);
        let costs = classes.clone().filter_map(|class| {
            let of_it = self.hashes.values().filter(|hash| hash.class() == class);
            let users = of_it.count();
            let advice = class.advice()?;
            Some(format!("{users} of its users have {class}: {advice}"))
        });
        let mut advice: Vec<String> = costs.collect();
        if self.decoys.len() > 1 {
            let classes: Vec<String> = classes.map(|class| class.to_string()).collect();
            advice.push(format!(
                "it has {}, and each verification computes one of each, so that nobody learns \
                 which users there are; use one kind and one cost",
                classes.join(" and ")
            ));
        }
        advice
    }

    /// Whether these were found right, or wrong, a short time ago. Quick.
    pub(super) fn known(&self, credentials: &Credentials) -> Option<bool> {
        let digest = self.digest(credentials);
        let (memory, now) = (self.remembered(), Instant::now());
        let fresh = |of: &HashMap<_, Instant>| of.get(&digest).is_some_and(|until| now < *until);
        if fresh(&memory.right) {
            Some(true)
        } else {
            fresh(&memory.wrong).then_some(false)
        }
    }

    /// Whether these are right. Takes as long as the hashes do, whichever user it is.
    pub(super) fn verify(&self, credentials: &Credentials) -> bool {
        let known = self.hashes.get(&credentials.user);
        let mut right = false;
        for decoy in &self.decoys {
            let own = known.filter(|hash| hash.class() == decoy.class());
            let fits = own.unwrap_or(decoy).is_of(&credentials.password);
            right |= fits & own.is_some();
        }
        let digest = self.digest(credentials);
        let (mut memory, now) = (self.remembered(), Instant::now());
        if right {
            remember(&mut memory.right, digest, now, MEMORY);
        } else {
            remember(&mut memory.wrong, digest, now, WRONG_MEMORY);
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
    fn remembered(&self) -> MutexGuard<'_, Memory> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without room for it, it is not.
fn remember(of: &mut HashMap<[u64; 2], Instant>, digest: [u64; 2], now: Instant, long: Duration) {
    if of.len() >= REMEMBERED_MAX {
        of.retain(|_, until| now < *until);
    }
    if of.len() < REMEMBERED_MAX {
        of.insert(digest, now + long);
    }
}

/// The text of a file that nobody else can change. Never waits, and is bounded, whatever
/// the path leads to.
fn read(path: &Path) -> Result<String, UsersError> {
    let path = || path.to_owned();
    let unread = |error| UsersError::Read {
        path: path(),
        error,
    };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path())
        .map_err(unread)?;
    let found = file.metadata().map_err(unread)?;
    if !found.is_file() {
        return Err(UsersError::NoFile { path: path() });
    }
    let (owner, us) = (found.uid(), nix::unistd::geteuid().as_raw());
    if owner != 0 && owner != us {
        return Err(UsersError::Writable {
            path: path(),
            whom: format!("its owner, user {owner}"),
            remedy: "chown it to root, or to the user that thalweg runs as",
        });
    }
    if found.mode() & 0o022 != 0 {
        return Err(UsersError::Writable {
            path: path(),
            whom: "others than its owner".to_owned(),
            remedy: "chmod go-w it",
        });
    }
    if found.len() > FILE_MAX {
        return Err(UsersError::TooLarge { path: path() });
    }
    let mut text = String::new();
    // It may grow meanwhile.
    file.take(FILE_MAX)
        .read_to_string(&mut text)
        .map_err(unread)?;
    Ok(text)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::proto::connect::{Parse, Reader, Settings};

    /// `openssl passwd -6 -salt saltsalt secret`, and `-5`.
    const HASHES: [&str; 2] = [
        "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
        "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
    ];

    pub(in crate::control) fn users() -> Users {
        let bcrypt = bcrypt::hash_with_salt("secret", 4, [7; 16]).expect("a hash");
        let bcrypt = bcrypt.format_for_version(bcrypt::Version::TwoY);
        let text = format!(
            "# comment\n\nsix:{}\nfive:{}\nbee:{bcrypt}\n",
            HASHES[0], HASHES[1]
        );
        Users::parse(&text).expect("a file")
    }

    pub(in crate::control) fn credentials(user: &str, password: &str) -> Credentials {
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
            assert_eq!(users.known(&right), None);
            for wrong in [credentials(user, "Secret"), credentials(user, "")] {
                assert!(!users.verify(&wrong));
                assert_eq!(users.known(&wrong), Some(false));
            }
            assert!(users.verify(&right), "{user}");
            assert_eq!(users.known(&right), Some(true));
        }
        assert!(!users.verify(&credentials("nobody", "secret")));
        assert_eq!(users.known(&credentials("nobody", "secret")), Some(false));
        let shown = format!("{users:?}{:?}", credentials("six", "hush"));
        assert!(!shown.contains("$6$") && !shown.contains("hush"), "{shown}");
    }

    /// By the number of hashes, which is what takes the time.
    #[test]
    fn every_user_costs_the_same_and_so_does_one_that_there_is_not() {
        let users = users();
        let classes: Vec<String> = users
            .decoys
            .iter()
            .map(|it| it.class().to_string())
            .collect();
        assert_eq!(
            classes,
            [
                "bcrypt of cost 4",
                "SHA-256-crypt with 5000 rounds",
                "SHA-512-crypt with 5000 rounds"
            ]
        );
        // Each user is of one of them, so that one of its hashes stands in a decoy's place.
        for hash in users.hashes.values() {
            let same = |decoy: &&Hash| decoy.class() == hash.class();
            assert_eq!(users.decoys.iter().filter(same).count(), 1);
        }
        let advice = users.advice();
        assert_eq!(advice.len(), 2, "{advice:?}");
        assert!(advice[0].starts_with("1 of its users have bcrypt of cost 4: "));
        assert!(advice[1].contains("computes one of each"), "{advice:?}");
        let fine = format!("a:{}\nb:{}\n", HASHES[0], HASHES[0]);
        assert_eq!(Users::parse(&fine).expect("a file").advice(), [""; 0]);
    }

    #[test]
    fn bcrypt_is_not_asked_about_what_it_would_ignore() {
        let long = "x".repeat(80);
        let of = |password: &str| {
            let hash = bcrypt::hash_with_salt(password, 4, [7; 16]).expect("a hash");
            let hash = hash.format_for_version(bcrypt::Version::TwoB);
            Users::parse(&format!("bee:{hash}\n")).expect("a file")
        };
        let users = of(&long[..72]);
        assert!(users.verify(&credentials("bee", &long[..72])));
        assert!(!users.verify(&credentials("bee", &long)));
        assert!(!of("").verify(&credentials("bee", "\0")));
    }

    #[test]
    fn a_file_may_begin_with_a_byte_order_mark() {
        let text = format!("\u{feff}six:{}\r\n", HASHES[0]);
        let users = Users::parse(&text).expect("a file");
        assert!(users.verify(&credentials("six", "secret")));
    }

    #[test]
    fn a_file_that_others_can_change_or_that_is_none_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = std::env::temp_dir().join(format!("thalweg-users-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join("users");
        std::fs::write(&path, format!("six:{}\n", HASHES[0])).expect("a file");
        for (mode, fine) in [(0o600, true), (0o644, true), (0o664, false), (0o606, false)] {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, mode.clone()).expect("a mode");
            let read = Users::read(&path).map_err(|error| error.to_string());
            assert_eq!(read.is_ok(), fine, "{mode:?}: {read:?}");
            assert!(fine || read.is_err_and(|error| error.contains("chmod go-w")));
        }
        if nix::unistd::geteuid().is_root() {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("");
            std::os::unix::fs::chown(&path, Some(65_534), None).expect("an owner");
            let error = Users::read(&path).expect_err("another's").to_string();
            assert!(error.contains("user 65534"), "{error}");
        }
        // Nobody writes to it: it is not waited for.
        let pipe = directory.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert!(matches!(Users::read(&pipe), Err(UsersError::NoFile { .. })));
        std::fs::remove_dir_all(directory).expect("it goes");
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
            // "a:b\0c"
            "Basic YTpiAGM=",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
