//! Who may connect to the unix listeners of a forward.

use serde_json::json;

use super::kind::{Optional, Special};
use super::raw::{Node, Value};
use super::report::Fault;
use super::section::section;
use super::text::quote;
use super::values;
use crate::net::listener::{SocketPermissions, Who};

section! {
    /// Owner, group and rights of the paths of unix listeners.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct UnixFile, UnixFileKeys {
        keys {
            /// Unix listeners: rights of the path, octal. Connecting takes the right to write;
            /// without it the umask decides.
            mode as "unix_mode": Option<u32> = None, Optional(mode()), Rebind,
                shown "–", example "\"0660\"";
            /// Unix listeners: whose path it is, a name or a number; another user than one's own
            /// takes `CAP_CHOWN`.
            owner as "unix_owner": Option<Who> = None, Optional(who()), Rebind,
                shown "–", example "\"root\"";
            /// Unix listeners: its group, a name or a number; a group one is not in takes `CAP_CHOWN`.
            group as "unix_group": Option<Who> = None, Optional(who()), Rebind,
                shown "–", example "\"root\"";
        }
    }
}

impl UnixFile {
    /// As a listener wants them.
    pub fn permissions(&self) -> SocketPermissions {
        SocketPermissions {
            mode: self.mode,
            owner: self.owner.clone(),
            group: self.group.clone(),
        }
    }
}

/// Octal rights, as text: a number of TOML would be read as decimal by some and as octal
/// by others.
fn mode() -> Special<u32> {
    Special {
        read: read_mode,
        write: |mode| quote(&format!("{mode:04o}")),
        words: "octal text, `\"0000\"` to `\"0777\"`",
        schema: || json!({ "type": "string", "pattern": "^0?[0-7]{3}$" }),
    }
}

fn read_mode(node: &Node) -> Result<u32, Fault> {
    let fault =
        || Fault::new("this is no mode of a file").remedy("three octal digits, such as \"0660\"");
    let text = values::string(node).map_err(|_| fault())?;
    let digits = text
        .strip_prefix('0')
        .filter(|it| it.len() == 3)
        .unwrap_or(text);
    if digits.len() != 3 || !digits.bytes().all(|it| matches!(it, b'0'..=b'7')) {
        return Err(fault());
    }
    u32::from_str_radix(digits, 8).map_err(|_| fault())
}

pub(super) fn who() -> Special<Who> {
    Special {
        read: read_who,
        write: |who| match who {
            Who::Id(id) => id.to_string(),
            Who::Name(name) => quote(name),
        },
        words: "name or number",
        schema: || {
            json!({ "anyOf": [
            { "type": "string", "minLength": 1 },
            { "type": "integer", "minimum": 0, "maximum": u32::MAX - 1 },
        ] })
        },
    }
}

fn read_who(node: &Node) -> Result<Who, Fault> {
    match &node.value {
        // The last number means "as it is" to chown(2).
        Value::Integer(_) => values::integer(node, 0..=i64::from(u32::MAX) - 1).map(Who::Id),
        _ => match values::string(node)? {
            "" => Err(Fault::new("this is empty").remedy("a name or a number of this host")),
            name => Ok(Who::Name(name.to_owned())),
        },
    }
}
