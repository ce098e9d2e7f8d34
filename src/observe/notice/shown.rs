//! A field of a notice, as JSON and as text have it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::net::address::Endpoint;
use crate::net::options::{Advice, Leg, Shortfall};
use crate::observe::counters::{ProcessSnapshot, ServerSnapshot, Snapshot};
use crate::observe::metrics::render::{self, Field};
use crate::relay::ending::Cause;

/// What a field of a notice can be.
pub trait Shown {
    /// Tells what there is of it under names of its own, or under `name`.
    fn json(&self, name: &str, put: &mut dyn FnMut(&str, Value));

    /// What it adds to a line of text behind the sentence: a table its figures, others
    /// nothing, for the sentence has them.
    fn text(&self, _: &mut String) {}
}

/// A server, for people: its address and its pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Its pool, or the forward in which it is written.
    pub pool: Arc<str>,
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.endpoint, self.pool)
    }
}

impl Shown for ServerName {
    fn json(&self, name: &str, put: &mut dyn FnMut(&str, Value)) {
        put(name, self.endpoint.to_string().into());
        put("pool", self.pool.as_ref().into());
    }
}

/// Several of something; a sentence has the first few of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List(pub Vec<String>);

/// How many a sentence has.
const SHOWN_MAX: usize = 8;

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.len().min(SHOWN_MAX);
        f.write_str(&self.0[..shown].join(", "))?;
        match self.0.len() - shown {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

macro_rules! tables {
    ($($Type:ty => |$it:ident| $table:expr;)+) => {$(
        impl Shown for $Type {
            fn json(&self, _: &str, put: &mut dyn FnMut(&str, Value)) {
                let $it = self;
                render::fields($table, &mut |name, field| match field {
                    Field::Number(number) => put(name, number.into()),
                    Field::Word(word) => put(name, word.into()),
                });
            }

            fn text(&self, line: &mut String) {
                let $it = self;
                render::text($table, line);
            }
        }
    )+};
}

tables! {
    Box<Snapshot> => |it| it.as_ref();
    Box<ServerSnapshot> => |it| it.as_ref();
    ProcessSnapshot => |it| it;
}

impl Shown for Shortfall {
    fn json(&self, _: &str, put: &mut dyn FnMut(&str, Value)) {
        put("option", self.option.to_string().into());
        put("asked", self.asked.as_str().into());
        put("granted", self.granted.as_str().into());
        put("remedy", self.remedy.as_str().into());
    }
}

impl Shown for Advice {
    fn json(&self, _: &str, put: &mut dyn FnMut(&str, Value)) {
        put("option", self.option.to_string().into());
        put("window", self.window.into());
    }
}

impl Shown for Duration {
    fn json(&self, name: &str, put: &mut dyn FnMut(&str, Value)) {
        let micros = u64::try_from(self.as_micros()).unwrap_or(u64::MAX);
        put(&format!("{name}_us"), micros.into());
    }
}

impl<T: Shown> Shown for Option<T> {
    /// Nothing where there is nothing.
    fn json(&self, name: &str, put: &mut dyn FnMut(&str, Value)) {
        if let Some(it) = self {
            it.json(name, put);
        }
    }
}

macro_rules! shown {
    ($($Type:ty => |$it:ident| $value:expr;)+) => {$(
        impl Shown for $Type {
            fn json(&self, name: &str, put: &mut dyn FnMut(&str, Value)) {
                let $it = self;
                put(name, $value.into());
            }
        }
    )+};
}

shown! {
    bool => |it| *it;
    u16 => |it| *it;
    u32 => |it| *it;
    u64 => |it| *it;
    usize => |it| *it;
    f64 => |it| *it;
    &'static str => |it| *it;
    String => |it| it.as_str();
    Arc<str> => |it| it.as_ref();
    List => |it| it.0.as_slice();
    Vec<u64> => |it| it.as_slice();
    PathBuf => |it| it.display().to_string();
    Endpoint => |it| it.to_string();
    Cause => |it| it.name();
    io::Error => |it| it.to_string();
    Leg => |it| it.to_string();
}
