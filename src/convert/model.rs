//! What the originals have in common, in our terms, before it is written down.

use super::finding::Origin;

/// A value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
    Bool(bool),
    List(Vec<String>),
    /// An inline table.
    Table(Vec<(&'static str, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<Vec<String>> for Value {
    fn from(list: Vec<String>) -> Self {
        Self::List(list)
    }
}

/// Keys of one section in the order in which they were first set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Keys(Vec<Key>);

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) value: Value,
    /// Behind it, for who reads the result.
    pub(super) remark: Option<&'static str>,
}

impl Keys {
    /// Sets a key, or sets it anew.
    pub(super) fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.put(Key {
            name,
            value: value.into(),
            remark: None,
        });
    }

    /// Likewise, with a remark behind it.
    pub(super) fn set_because(
        &mut self,
        name: &'static str,
        value: impl Into<Value>,
        remark: &'static str,
    ) {
        self.put(Key {
            name,
            value: value.into(),
            remark: Some(remark),
        });
    }

    fn put(&mut self, key: Key) {
        match self.0.iter_mut().find(|old| old.name == key.name) {
            Some(old) => *old = key,
            None => self.0.push(key),
        }
    }

    /// Adds to a list.
    pub(super) fn push(&mut self, name: &'static str, item: impl Into<String>) {
        let item = item.into();
        if let Some(Key {
            value: Value::List(list),
            ..
        }) = self.0.iter_mut().find(|key| key.name == name)
        {
            list.push(item);
        } else {
            self.set(name, vec![item]);
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|key| key.name == name)
            .map(|key| &key.value)
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|key| key.name != name);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// These, and over them others.
    pub(super) fn with(&self, over: &Self) -> Self {
        let mut all = self.clone();
        for key in over.iter() {
            all.put(key.clone());
        }
        all
    }
}

/// A whole configuration.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) global: Keys,
    pub(super) log: Keys,
    /// `[defaults]` and `[defaults.upstream]`: where the original's differ from ours.
    pub(super) defaults: Keys,
    pub(super) pool_defaults: Keys,
    pub(super) forwards: Vec<Forward>,
    pub(super) pools: Vec<Pool>,
}

/// A `[[forward]]`.
#[derive(Debug, Clone)]
pub(super) struct Forward {
    pub(super) origin: Origin,
    pub(super) name: Option<String>,
    pub(super) listen: Vec<String>,
    pub(super) keys: Keys,
    /// Socket options of each leg; those of equal ones are written once.
    pub(super) client_options: Keys,
    pub(super) upstream_options: Keys,
    pub(super) to: Option<Target>,
    /// Keys of a pool that the original has at the forward.
    pub(super) pool_keys: Keys,
    pub(super) routes: Vec<Route>,
}

impl Forward {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            name: None,
            listen: Vec::new(),
            keys: Keys::default(),
            client_options: Keys::default(),
            upstream_options: Keys::default(),
            to: None,
            pool_keys: Keys::default(),
            routes: Vec::new(),
        }
    }
}

/// Where sessions go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A pool of the model, by its name.
    Pool(String),
    /// One address.
    Address(String),
    /// Nowhere.
    Reject,
}

/// A `[[forward.route]]`.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) origin: Origin,
    pub(super) keys: Keys,
    pub(super) to: Target,
}

/// An `[upstream.NAME]`.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pub(super) origin: Origin,
    /// As the original calls it.
    pub(super) name: String,
    pub(super) keys: Keys,
    pub(super) servers: Vec<Server>,
}

/// A server of a pool.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) address: String,
    pub(super) keys: Keys,
}
