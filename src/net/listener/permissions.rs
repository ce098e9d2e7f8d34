//! Who may connect to a unix listener: owner, group and mode of its path.
//!
//! They are set between bind and listen, so that nobody who is not meant to gets through
//! before. Connecting takes the right to write to the path (unix(7)), and to search its
//! directories.

use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, fchownat};

use super::BindCause;

/// A user or a group, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// By number.
    Id(u32),
    /// By name, which is looked up when the listener is made.
    Name(String),
}

/// What the path of a unix listener is given. What is `None` stays as the kernel makes it:
/// the user and group of the process, and every right that the umask leaves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SocketPermissions {
    /// Rights, as chmod(1) has them.
    pub mode: Option<u32>,
    /// Whose it is; another one than the process's own takes `CAP_CHOWN`.
    pub owner: Option<Who>,
    /// Of which group it is; one that the process is not in takes `CAP_CHOWN`.
    pub group: Option<Who>,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl SocketPermissions {
    /// Sets them on a path that was bound and is not listened on yet.
    pub(super) fn apply(&self, path: &Path) -> Result<(), BindCause> {
        let owner = self.owner.as_ref().map(user).transpose()?;
        let group = self.group.as_ref().map(group).transpose()?;
        if owner.is_some() || group.is_some() {
            let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
            fchownat(nix::fcntl::AT_FDCWD, path, owner, group, flags).map_err(|errno| {
                BindCause::System {
                    operation: "chown",
                    errno,
                }
            })?;
        }
        if let Some(mode) = self.mode {
            fs::set_permissions(path, Permissions::from_mode(mode))
                .map_err(|error| BindCause::system("chmod", &error))?;
        }
        Ok(())
    }
}

fn user(who: &Who) -> Result<Uid, BindCause> {
    match who {
        Who::Id(id) => Ok(Uid::from_raw(*id)),
        Who::Name(name) => {
            let found = User::from_name(name).map_err(looking_up)?;
            found.map(|it| it.uid).ok_or_else(|| BindCause::NoSuchUser {
                what: "user",
                name: name.clone(),
            })
        }
    }
}

fn group(who: &Who) -> Result<Gid, BindCause> {
    match who {
        Who::Id(id) => Ok(Gid::from_raw(*id)),
        Who::Name(name) => {
            let found = Group::from_name(name).map_err(looking_up)?;
            found.map(|it| it.gid).ok_or_else(|| BindCause::NoSuchUser {
                what: "group",
                name: name.clone(),
            })
        }
    }
}

const fn looking_up(errno: Errno) -> BindCause {
    BindCause::System {
        operation: "looking the owner up",
        errno,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_and_unknown_ones_named() {
        let root = Who::Name("root".to_owned());
        assert_eq!(user(&root), Ok(Uid::from_raw(0)));
        assert_eq!(group(&root), Ok(Gid::from_raw(0)));
        assert_eq!(user(&Who::Id(77)), Ok(Uid::from_raw(77)));
        let nobody = Who::Name("no such one".to_owned());
        let error = group(&nobody).unwrap_err().to_string();
        assert!(error.contains("there is no group no such one"), "{error}");
    }
}
