//! Landlock: files and TCP ports.
//!
//! What it does not see, tried at ABI 7 (Linux 6.18): UDP, Multipath TCP, a connect by
//! `MSG_FASTOPEN`, `listen` on a socket that is not bound; and it does not ask who connects
//! to a unix socket. None of that is claimed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
};

use super::needs::{Ports, Reach};

/// What every forwarder reads, wherever it is configured: itself, the machine, names of
/// users, libraries that look them up, the time zone.
const READ: [&str; 18] = [
    "/proc",
    "/sys",
    "/dev/urandom",
    "/dev/random",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/services",
    "/run/systemd/resolve",
];

/// The programs that run dynamic programs.
const INTERPRETERS: [&str; 4] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
];

/// What a check's program may run in turn.
const PROGRAMS: [&str; 6] = ["/bin", "/sbin", "/usr", "/lib", "/lib64", "/opt"];

/// What is in force of it.
#[derive(Debug, Clone)]
pub(super) struct Landed {
    /// Of the kernel; 0 has none.
    abi: u32,
    /// Whether connects are restricted to ports, which clients that say where to go prevent.
    connects: bool,
}

/// What this kernel has: told to a thread that restricts itself, and ends.
fn abi() -> u32 {
    let tried = std::thread::spawn(|| {
        let ruleset = Ruleset::default().handle_access(AccessFs::Execute);
        let status = ruleset.and_then(Ruleset::create)?.restrict_self()?;
        Ok::<_, landlock::RulesetError>(status.landlock)
    });
    match tried.join() {
        Ok(Ok(LandlockStatus::Available { effective_abi, .. })) => effective_abi as u32,
        _ => 0,
    }
}

/// In words, of this kernel.
pub(super) fn expected() -> String {
    let landed = Landed {
        abi: abi(),
        connects: true,
    };
    landed.to_string()
}

impl Landed {
    /// Restricts the calling thread and what it starts, as far as this kernel can.
    pub(super) fn enter(needs: &Reach) -> Result<Self, String> {
        let landed = Self {
            abi: abi(),
            connects: needs.connect.any.is_none(),
        };
        if landed.abi == 0 {
            return Ok(landed);
        }
        let failed = |error: landlock::RulesetError| format!("Landlock: {error}");
        let known = ABI::V5;
        let mut ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(known))
            .map_err(failed)?;
        if needs.listen.any.is_none() {
            ruleset = ruleset.handle_access(AccessNet::BindTcp).map_err(failed)?;
        }
        if landed.connects {
            ruleset = ruleset
                .handle_access(AccessNet::ConnectTcp)
                .map_err(failed)?;
        }
        let mut ruleset = ruleset.create().map_err(failed)?;
        let run = BitFlags::from(AccessFs::Execute);
        let read = AccessFs::from_read(known) & !run;
        let write = AccessFs::from_all(known) & !run & !(AccessFs::MakeChar | AccessFs::MakeBlock);
        for path in READ {
            ruleset = beneath(ruleset, Path::new(path), read)?;
        }
        let null = read | AccessFs::WriteFile;
        ruleset = beneath(ruleset, Path::new("/dev/null"), null)?;
        ruleset = all(ruleset, &needs.read, read)?;
        ruleset = all(ruleset, &needs.write, write)?;
        for path in programs(needs) {
            ruleset = beneath(ruleset, &path, read | run)?;
        }
        if landed.has_ports() {
            ruleset = ports(ruleset, &needs.listen, AccessNet::BindTcp)?;
            if landed.connects {
                ruleset = ports(ruleset, &needs.connect, AccessNet::ConnectTcp)?;
            }
        }
        ruleset.restrict_self().map_err(failed)?;
        Ok(landed)
    }

    /// Whether nothing that is restricted where it can be is free here.
    pub(super) const fn is_whole(&self) -> bool {
        self.has_ports()
    }

    pub(super) const fn has_files(&self) -> bool {
        self.abi >= 1
    }

    pub(super) const fn has_ports(&self) -> bool {
        self.abi >= 4
    }
}

/// What may be run: another version of this program, and what checks are.
fn programs(needs: &Reach) -> Vec<PathBuf> {
    let mut programs: Vec<PathBuf> = INTERPRETERS.iter().map(PathBuf::from).collect();
    let own = std::env::current_exe().ok();
    programs.extend(own.and_then(|it| Some(it.parent()?.to_owned())));
    if !needs.execute.is_empty() {
        programs.extend(PROGRAMS.iter().map(PathBuf::from));
        programs.extend(needs.execute.keys().cloned());
    }
    programs
}

fn all(
    mut ruleset: RulesetCreated,
    paths: &BTreeMap<PathBuf, String>,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, String> {
    for path in paths.keys() {
        ruleset = beneath(ruleset, path, access)?;
    }
    Ok(ruleset)
}

/// What is not there needs no permission, and gets none.
fn beneath(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, String> {
    let Ok(fd) = PathFd::new(path) else {
        return Ok(ruleset);
    };
    // A file cannot be given what only a folder can have.
    let access = if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(ABI::V5)
    };
    let rule = PathBeneath::new(fd, access);
    ruleset
        .add_rule(rule)
        .map_err(|error| format!("Landlock: {}: {error}", path.display()))
}

fn ports(
    mut ruleset: RulesetCreated,
    ports: &Ports,
    access: AccessNet,
) -> Result<RulesetCreated, String> {
    if ports.any.is_some() {
        return Ok(ruleset);
    }
    // Whoever connects from an address of its own binds to port 0.
    for port in ports.each.keys().copied().chain([0]) {
        ruleset = ruleset
            .add_rule(NetPort::new(port, access))
            .map_err(|error| format!("Landlock: port {port}: {error}"))?;
    }
    Ok(ruleset)
}

impl fmt::Display for Landed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.has_files() {
            return f.write_str("files and ports not restricted: this kernel has no Landlock");
        }
        write!(f, "files by Landlock {}", self.abi)?;
        if !self.has_ports() {
            return f.write_str(", TCP ports not restricted: that needs Linux 6.7");
        }
        if !self.connects {
            return f.write_str(
                ", TCP ports to listen on; connects not restricted, since clients or SRV \
                 records say where to go",
            );
        }
        f.write_str(", TCP ports (not UDP, Multipath TCP and TCP Fast Open)")
    }
}
