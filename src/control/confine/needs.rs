//! What a configuration needs of files and TCP ports, each with the key that needs it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::admin;
use crate::config::{
    AdminListen, CheckKind, Config, Confine, Forward, LogTarget, Pool, RouteTo, TapTarget,
};
use crate::control::beside;
use crate::control::source::ConfigSource;
use crate::net::address::{Address, UnixName};

/// Where DNS servers listen.
const DNS_PORT: u16 = 53;

/// Whose need the files of the configuration are.
const CONFIGURATION: &str = "the configuration";

/// See the module's documentation. What is mapped to is whose need it is.
#[derive(Debug, Clone, Default)]
pub(in crate::control) struct Reach {
    pub(super) read: BTreeMap<PathBuf, String>,
    /// Folders in which files are made, written and removed.
    pub(super) write: BTreeMap<PathBuf, String>,
    /// Programs of checks.
    pub(super) execute: BTreeMap<PathBuf, String>,
    pub(super) listen: Ports,
    pub(super) connect: Ports,
}

/// TCP ports.
#[derive(Debug, Clone, Default)]
pub(super) struct Ports {
    pub(super) each: BTreeMap<u16, String>,
    /// Any port, for this reason.
    pub(super) any: Option<String>,
}

impl Reach {
    pub(super) fn of(config: &Config, source: Option<&dyn ConfigSource>) -> Self {
        let mut needs = Self::default();
        let files = source.map(ConfigSource::was_read).unwrap_or_default();
        for file in files.keys() {
            needs.reads(file, CONFIGURATION);
        }
        needs.reads(&config.global.names.resolv_conf, "[global] resolv_conf");
        needs.reads(&config.global.names.hosts, "[global] hosts");
        if let LogTarget::File(path) = &config.log.to {
            needs.writes(path, "[log] to");
        }
        if let Some(path) = &config.admin.token_file {
            needs.reads(path, "[admin] token_file");
        }
        if config.admin.listen == AdminListen::Auto {
            for directory in admin::runtime_directories() {
                needs.write.insert(directory, "[admin] listen".to_owned());
            }
        }
        for address in endpoints(config) {
            needs.listens(address, "[admin] or [metrics] listen");
        }
        for server in &config.global.names.dns_servers {
            needs.connects(Some(server.port()), "[global] dns_servers");
        }
        needs.connects(Some(DNS_PORT), "[global] resolv_conf");
        for forward in &config.forwards {
            needs.forward(forward);
        }
        needs
    }

    /// What it is with a configuration that was read from these files.
    pub(super) fn with_files<'a>(mut self, files: impl IntoIterator<Item = &'a Path>) -> Self {
        for file in files {
            self.reads(file, CONFIGURATION);
        }
        self
    }

    /// A line for each: what it lets do, and whose need that is.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (what, paths) in [
            ("read in", &self.read),
            ("write in", &self.write),
            ("run", &self.execute),
        ] {
            let each = paths.iter();
            lines.extend(each.map(|(path, key)| format!("{what} {}: {key}", path.display())));
        }
        for (what, ports) in [("listen on", &self.listen), ("connect to", &self.connect)] {
            if let Some(key) = &ports.any {
                lines.push(format!("{what} any TCP port: {key}"));
                continue;
            }
            let each = ports.each.iter().filter(|(port, _)| **port != 0);
            lines.extend(each.map(|(port, key)| format!("{what} TCP port {port}: {key}")));
        }
        lines
    }

    /// And what a later configuration may need.
    pub(super) fn with_further(mut self, keys: &Confine) -> Self {
        for path in &keys.sandbox_paths {
            self.read.insert(path.clone(), "sandbox_paths".to_owned());
            self.write.insert(path.clone(), "sandbox_paths".to_owned());
        }
        for (first, last) in &keys.sandbox_ports {
            for port in *first..=*last {
                self.listen.add(Some(port), "sandbox_ports");
                self.connect.add(Some(port), "sandbox_ports");
            }
        }
        self
    }

    fn forward(&mut self, forward: &Arc<Forward>) {
        let whose = |key: &str| format!("forward {}: `{key}`", forward.name);
        for address in &forward.listen {
            self.listens(address, &whose("listen"));
        }
        if let Some(tap) = &forward.tap
            && let TapTarget::File(path) = &tap.to
        {
            self.writes(path, &whose("tap"));
        }
        for (key, path) in beside::of_forward(forward) {
            self.reads(path, &whose(key));
        }
        if forward.requests().next().is_some() {
            self.connects(None, &whose("mode"));
        }
        for (label, pool) in pools(forward) {
            let key = format!("forward {}: `{label}`", forward.name);
            self.pool(pool, &key);
        }
    }

    fn pool(&mut self, pool: &Pool, key: &str) {
        for server in &pool.servers {
            match &server.address {
                Address::Srv(_) => self.connects(None, key),
                address => {
                    if let Some(port) = address.port() {
                        self.connects(Some(port), key);
                    }
                }
            }
        }
        if pool.transparent {
            // From the client's own port.
            self.listen.add(None, key);
        }
        if let Some(check) = &pool.check {
            if let Some(port) = check.port {
                self.connects(Some(port), key);
            }
            if let CheckKind::Command { argv } = &check.kind
                && let Some(program) = argv.first()
            {
                self.execute.insert(program.into(), key.to_owned());
            }
        }
    }

    fn listens(&mut self, address: &Address, key: &str) {
        match address {
            Address::Unix(UnixName::Path(path)) => self.writes(path, key),
            address => {
                // Which port the kernel will choose nobody knows, and its other reactors
                // join it.
                if let Some(port) = address.port() {
                    self.listen.add(Some(port).filter(|port| *port != 0), key);
                }
            }
        }
    }

    fn connects(&mut self, port: Option<u16>, key: &str) {
        self.connect.add(port, key);
    }

    /// A file that is read, and that another one may be put in the place of: so where it is.
    fn reads(&mut self, file: &Path, key: &str) {
        self.read.insert(place_of(file), key.to_owned());
        // A link may lead elsewhere.
        if let Ok(target) = file.canonicalize() {
            self.read.insert(place_of(&target), key.to_owned());
        }
    }

    fn writes(&mut self, file: &Path, key: &str) {
        let folder = file.parent().filter(|it| !it.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        self.write.insert(absolute(folder), key.to_owned());
    }

    /// What goes beyond what is `allowed`, a line for each.
    pub(super) fn beyond(&self, allowed: &Self, ports: bool) -> Vec<String> {
        let mut missing = Vec::new();
        let mut paths =
            |wanted: &BTreeMap<PathBuf, String>, has: &BTreeMap<PathBuf, String>, what| {
                for (path, key) in wanted {
                    if !has.keys().any(|it| path.starts_with(it)) {
                        let path = path.display();
                        missing.push(format!("{key}: the sandbox does not let it {what} {path}"));
                    }
                }
            };
        paths(&self.read, &allowed.read, "read in");
        paths(&self.write, &allowed.write, "write in");
        if allowed.execute.is_empty() {
            paths(&self.execute, &allowed.execute, "run");
        }
        if ports {
            missing.extend(self.listen.beyond(&allowed.listen, "listen on"));
            missing.extend(self.connect.beyond(&allowed.connect, "connect to"));
        }
        missing
    }
}

impl Ports {
    fn add(&mut self, port: Option<u16>, key: &str) {
        match port {
            Some(port) => drop(self.each.entry(port).or_insert_with(|| key.to_owned())),
            None => drop(self.any.get_or_insert_with(|| key.to_owned())),
        }
    }

    fn beyond(&self, allowed: &Self, what: &str) -> Vec<String> {
        if allowed.any.is_some() {
            return Vec::new();
        }
        let any = self.any.iter();
        let any = any.map(|key| format!("{key}: the sandbox does not let it {what} any TCP port"));
        let each = self.each.iter();
        // Port 0 is the kernel's to choose, and allowed.
        let each = each.filter(|(port, _)| **port != 0 && !allowed.each.contains_key(port));
        any.chain(each.map(|(port, key)| {
            format!("{key}: the sandbox does not let it {what} TCP port {port}")
        }))
        .collect()
    }
}

/// Where the endpoint listens.
pub(super) fn endpoints(config: &Config) -> Vec<&Address> {
    let admin: &[Address] = match &config.admin.listen {
        AdminListen::At(addresses) => addresses,
        AdminListen::Auto => &[],
    };
    admin.iter().chain(&config.metrics.listen).collect()
}

/// The pools of a forward, by the key that has them.
pub(super) fn pools(forward: &Forward) -> Vec<(String, &Pool)> {
    let routes = forward.routes.iter().filter_map(|route| match &route.to {
        RouteTo::Pool(pool) => Some((format!("route {}", route.name), &**pool)),
        RouteTo::HttpConnect(_) | RouteTo::Reject => None,
    });
    let own = ("upstream".to_owned(), &*forward.pool);
    routes.chain([own]).collect()
}

/// The folder of a file, so that one that is put in its place is found as well; but the file
/// itself where that folder has others' secrets.
pub(super) fn place_of(file: &Path) -> PathBuf {
    let file = absolute(file);
    match file.parent() {
        None => file,
        Some(folder) if folder == Path::new("/") || folder == Path::new("/etc") => file,
        Some(folder) => folder.to_owned(),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
