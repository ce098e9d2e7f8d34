//! The tables that there are, and by what each can be sorted.

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Sessions,
    Servers,
    Forwards,
    Endings,
    Refused,
}

impl Tab {
    pub(super) const ALL: [Self; 5] = [
        Self::Sessions,
        Self::Servers,
        Self::Forwards,
        Self::Endings,
        Self::Refused,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Servers => "servers",
            Self::Forwards => "forwards",
            Self::Endings => "endings",
            Self::Refused => "refused",
        }
    }

    /// By what it can be sorted; the first is what it begins with.
    pub(super) const fn orders(self) -> &'static [&'static str] {
        match self {
            Self::Sessions => &["rate", "bytes", "age", "held"],
            Self::Servers => &["trouble", "sessions", "rate", "name"],
            Self::Forwards => &["trouble", "sessions", "rate", "name"],
            Self::Endings | Self::Refused => &["rate", "count"],
        }
    }
}
