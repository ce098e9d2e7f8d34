//! A [`Config`] as TOML, every default filled in, readable again as the same value.

use std::fmt::Write as _;

use super::forward::Forward;
use super::http_connect::Mode;
use super::model::Config;
use super::pool::Pool;
use super::profile;
use super::route::RouteTo;
use super::row::Pairs;
use super::section::Section;
use super::server::Server;
use super::tap::TapKey;
use super::text::{inline, key, list, quote};
use crate::net::options::SocketOptions;

impl Config {
    /// The configuration as TOML with every default filled in, port ranges
    /// expanded and pools inlined. [`Config::parse`] reads it as the same value.
    pub fn to_toml(&self) -> String {
        let mut out = Out::default();
        out.section("[global]", &self.global);
        out.section("[log]", &self.log);
        out.section("[admin]", &self.admin);
        out.section("[metrics]", &self.metrics);
        for (name, options) in &self.profiles {
            write_profile(&mut out, name, options);
        }
        for forward in &self.forwards {
            write_forward(&mut out, forward);
        }
        out.text
    }
}

#[derive(Default)]
struct Out {
    text: String,
}

impl Out {
    fn header(&mut self, header: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(header);
        self.text.push('\n');
    }

    /// A value as TOML.
    fn bare(&mut self, key: &str, value: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{key} = {value}");
    }

    fn quoted(&mut self, key: &str, value: &str) {
        self.bare(key, quote(value));
    }

    fn comment(&mut self, text: &str) {
        let _ = writeln!(self.text, "# {text}");
    }

    fn pairs(&mut self, pairs: Pairs) {
        for (key, value) in pairs {
            self.bare(key, value);
        }
    }

    fn keys<S: Section>(&mut self, section: &S) {
        let mut pairs = Pairs::new();
        section.write(&mut pairs);
        self.pairs(pairs);
    }

    fn section<S: Section>(&mut self, header: &str, section: &S) {
        self.header(header);
        self.keys(section);
    }
}

fn write_forward(out: &mut Out, forward: &Forward) {
    out.header("[[forward]]");
    out.quoted("name", &forward.name);
    out.bare(
        "listen",
        list(forward.listen.iter().map(ToString::to_string)),
    );
    out.keys(forward);
    out.bare("tap", TapKey::write(forward.tap.as_ref()));
    match &forward.mode {
        Mode::Tcp => write_pool(out, "[forward.upstream]", &forward.pool),
        Mode::HttpConnect(connect) => {
            out.bare("mode", forward.mode.write());
            out.header("[forward.connect]");
            out.pairs(connect.pairs());
        }
    }
    for route in &forward.routes {
        out.header("[[forward.route]]");
        out.pairs(route.pairs());
        match &route.to {
            RouteTo::Pool(pool) => write_pool(out, "[forward.route.upstream]", pool),
            RouteTo::Reject => {}
            RouteTo::HttpConnect(connect) => {
                out.header("[forward.route.connect]");
                out.pairs(connect.pairs());
            }
        }
    }
}

/// The pool of the forward or the route above.
fn write_pool(out: &mut Out, header: &str, pool: &Pool) {
    out.header(header);
    if let Some(name) = &pool.name {
        out.quoted("name", name);
    }
    let servers: Vec<String> = pool.servers.iter().map(server).collect();
    out.bare("servers", format!("[\n    {},\n]", servers.join(",\n    ")));
    out.keys(pool);
}

fn server(server: &Server) -> String {
    let mut pairs = vec![("address", quote(&server.address.to_string()))];
    server.write(&mut pairs);
    inline(&pairs)
}

fn write_profile(out: &mut Out, name: &str, options: &SocketOptions) {
    out.header(&format!("[profile.{}]", key(name)));
    out.pairs(profile::pairs(options));
    if options.quickack.is_none() {
        out.comment("quickack is not set: off before a connect, else the kernel's choice");
    }
}
