//! An [`Endpoint`] as it is written for another process: a path is bytes, whatever
//! encoding they are in.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use serde::{Deserialize, Serialize};

use super::{Endpoint, UnixName};

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrittenEndpoint {
    /// `Endpoint::Inet`.
    Inet(SocketAddr),
    /// A path in the file system.
    Path(Vec<u8>),
    /// A name in the abstract namespace.
    Abstract(Vec<u8>),
    /// `Endpoint::Unnamed`.
    Unnamed,
}

impl From<Endpoint> for WrittenEndpoint {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Inet(address) => Self::Inet(address),
            Endpoint::Unix(UnixName::Path(path)) => Self::Path(path.into_os_string().into_vec()),
            Endpoint::Unix(UnixName::Abstract(name)) => Self::Abstract(name),
            Endpoint::Unnamed => Self::Unnamed,
        }
    }
}

impl From<WrittenEndpoint> for Endpoint {
    fn from(written: WrittenEndpoint) -> Self {
        match written {
            WrittenEndpoint::Inet(address) => Self::Inet(address),
            WrittenEndpoint::Path(path) => {
                Self::Unix(UnixName::Path(OsStr::from_bytes(&path).into()))
            }
            WrittenEndpoint::Abstract(name) => Self::Unix(UnixName::Abstract(name)),
            WrittenEndpoint::Unnamed => Self::Unnamed,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let endpoints = [
            Endpoint::Inet("[::1]:443".parse().unwrap()),
            Endpoint::Unix(UnixName::Path(OsStr::from_bytes(b"/run/\xff").into())),
            Endpoint::Unix(UnixName::Abstract(vec![0, 255])),
            Endpoint::Unnamed,
        ];
        for endpoint in endpoints {
            let text = serde_json::to_string(&endpoint).unwrap();
            assert_eq!(serde_json::from_str::<Endpoint>(&text).unwrap(), endpoint);
        }
    }
}
