//! The options that are searched over: their names, and where they stand.

use serde::Serialize;

/// Where a setting stands in a configuration, and so what it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// `[profile.NAME]`: the sockets of a leg.
    Profile,
    /// `[defaults]`: a forward.
    Defaults,
    /// `[global]`: the forwarder as a whole.
    Global,
}

/// An option that is searched over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is the key of that name")]
pub enum Searched {
    Congestion,
    ReceiveBuffer,
    SendBuffer,
    Mss,
    NotsentLowat,
    MaxPacingRate,
    Quickack,
    /// `busy_poll` of a profile, on sockets.
    BusyPoll,
    DataPath,
    ScratchBuffer,
    PipeSize,
    Engine,
    /// `global.busy_poll`: the reactor spins.
    ReactorBusyPoll,
}

impl Searched {
    /// Every one; the order in which they are tried when time is short.
    pub const ALL: [Self; 13] = [
        Self::Congestion,
        Self::ReceiveBuffer,
        Self::SendBuffer,
        Self::Mss,
        Self::NotsentLowat,
        Self::MaxPacingRate,
        Self::Quickack,
        Self::BusyPoll,
        Self::DataPath,
        Self::ScratchBuffer,
        Self::PipeSize,
        Self::Engine,
        Self::ReactorBusyPoll,
    ];

    /// Its key in a configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::Congestion => "congestion",
            Self::ReceiveBuffer => "receive_buffer",
            Self::SendBuffer => "send_buffer",
            Self::Mss => "mss",
            Self::NotsentLowat => "notsent_lowat",
            Self::MaxPacingRate => "max_pacing_rate",
            Self::Quickack => "quickack",
            Self::BusyPoll | Self::ReactorBusyPoll => "busy_poll",
            Self::DataPath => "data_path",
            Self::ScratchBuffer => "scratch_buffer",
            Self::PipeSize => "pipe_size",
            Self::Engine => "engine",
        }
    }

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReactorBusyPoll => "global.busy_poll",
            other => other.key(),
        }
    }

    /// Where it stands.
    pub fn place(self) -> Place {
        match self {
            Self::DataPath => Place::Defaults,
            Self::ScratchBuffer | Self::PipeSize | Self::Engine | Self::ReactorBusyPoll => {
                Place::Global
            }
            _ => Place::Profile,
        }
    }

    /// Reads a list such as `congestion,mss`; `leg`, `forwarder` and `all` name
    /// groups.
    ///
    /// # Errors
    /// The name that is none, and those that are.
    pub fn parse_list(words: &[String]) -> Result<Vec<Self>, String> {
        let mut chosen = Vec::new();
        for word in words {
            let matching: Vec<Self> = Self::ALL
                .into_iter()
                .filter(|option| match word.as_str() {
                    "all" => true,
                    "leg" => option.place() == Place::Profile,
                    "forwarder" => option.place() != Place::Profile,
                    name => option.name() == name,
                })
                .collect();
            if matching.is_empty() {
                let names: Vec<&str> = Self::ALL.iter().map(|option| option.name()).collect();
                return Err(format!(
                    "`{word}` is not an option to search over: all, leg, forwarder, {}",
                    names.join(", ")
                ));
            }
            chosen.extend(matching);
        }
        Ok(Self::ALL
            .into_iter()
            .filter(|option| chosen.contains(option))
            .collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::net::options::OPTIONS;

    #[test]
    fn the_options_of_a_leg_are_those_that_their_table_says() {
        let of_the_table = OPTIONS.iter().filter(|row| row.searched).map(|row| row.key);
        let here = Searched::ALL
            .iter()
            .filter(|option| option.place() == Place::Profile);
        let here = here.map(|option| option.key());
        assert_eq!(
            of_the_table.collect::<BTreeSet<_>>(),
            here.collect::<BTreeSet<_>>()
        );
    }

    #[test]
    fn lists_of_options_know_groups_and_name_what_is_wrong() {
        let list = |text: &str| Searched::parse_list(&[text.to_owned()]);
        assert_eq!(list("mss"), Ok(vec![Searched::Mss]));
        assert_eq!(list("leg").unwrap().len(), 8);
        assert_eq!(list("all").unwrap().len(), 13);
        assert!(list("msss").unwrap_err().contains("mss"));
    }
}
