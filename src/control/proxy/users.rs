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

mod credentials;
mod file;
mod hash;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

pub(super) use credentials::Credentials;
pub use file::UsersError;
use file::read;
use hash::Hash;

/// How long right credentials are remembered.
const MEMORY: Duration = Duration::from_secs(300);

/// How long wrong ones are.
const WRONG_MEMORY: Duration = Duration::from_secs(30);

/// How many are, of either.
const REMEMBERED_MAX: usize = 4096;

/// Kinds and costs of hashes in a file: each verification computes one of each.
const CLASSES_MAX: usize = 8;

/// How many users the text of a file has; else the line that is wrong and why, or `None`
/// if there is nobody. For whoever checks such a file, and for fuzzers.
pub fn check(text: &str) -> Result<usize, Option<(usize, &'static str)>> {
    Users::parse(text).map(|users| users.hashes.len())
}

/// The users of a file.
#[derive(Debug)]
pub(super) struct Users {
    hashes: HashMap<String, Hash>,
    /// What they were read from, by its SHA-256: two with the same one are alike.
    digest: [u8; 32],
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
            digest: Sha256::digest(text.as_bytes()).into(),
            decoys,
            keys: [RandomState::new(), RandomState::new()],
            remembered: Mutex::default(),
        })
    }

    /// Whether the files of both say the same.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.digest == other.digest
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
