//! Where the far end is: on this host, behind an emulated path, or elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::bench::origin::{Handlers, Origin, OriginOptions};
use crate::bench::path::{Link, PathError, PathSpec};
use crate::bench::probe::{ProbeError, ProbeOptions, probe};
use crate::bench::units;
use crate::net::options::Leg;

/// How long the far end may take to answer before the search.
const PATIENCE: Duration = Duration::from_secs(3);

/// Later than this share of the round trip time on average, an emulated path is
/// another one than was asked for.
const LATE: f64 = 0.05;

/// Connects of which the shortest is taken.
const GREETINGS: usize = 3;

/// What the user names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// An origin of this process on loopback.
    Loopback,
    /// A `thalweg origin` somewhere.
    Remote(SocketAddr),
    /// An origin of this process behind an emulated path.
    Path(PathSpec),
}

/// Where runs take place, set up.
#[derive(Debug)]
pub enum Venue {
    /// On loopback.
    Loopback,
    /// Elsewhere.
    Remote(SocketAddr),
    /// Behind an emulated path, which lasts as long as this.
    Path(Box<Link>),
}

/// Why there is no far end.
#[derive(Debug, thiserror::Error)]
pub enum VenueError {
    /// The emulated path cannot be had.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Nobody answers there, or somebody who is no origin.
    #[error("{address}: {problem}; run `thalweg origin -l :{port}` at the far end", port = address.port())]
    NotAnOrigin {
        /// Whom.
        address: SocketAddr,
        /// What happened.
        problem: String,
    },
}

impl Venue {
    /// Sets it up. For an emulated path the calling thread moves into its near end
    /// and stays there, so this comes before any thread is started. `congestion`
    /// becomes the default of both ends of an emulated path.
    ///
    /// # Errors
    /// What is not permitted or missing.
    pub fn open(place: &Where, congestion: Option<&str>) -> Result<Self, VenueError> {
        match place {
            Where::Loopback => Ok(Self::Loopback),
            Where::Remote(address) => Ok(Self::Remote(*address)),
            Where::Path(spec) => {
                let link = Link::start(spec)?;
                if let Some(name) = congestion {
                    link.set_congestion(name)?;
                }
                link.near().enter()?;
                Ok(Self::Path(Box::new(link)))
            }
        }
    }

    /// Finds out whether an origin answers, and returns how long connecting takes: the
    /// shortest of a few times, since a machine may be busy elsewhere.
    ///
    /// # Errors
    /// That none does.
    pub fn greet(&self) -> Result<Duration, VenueError> {
        let origin = self.origin(&OriginOptions::default());
        let own = origin.as_ref().ok().and_then(Option::as_ref);
        let address = own.map_or(self.address(), |origin| origin.addresses()[0].1);
        let not_an_origin = |problem: String| VenueError::NotAnOrigin { address, problem };
        if let Err(problem) = &origin {
            return Err(not_an_origin(problem.clone()));
        }
        let mut shortest = Duration::MAX;
        for _ in 0..GREETINGS {
            let report = probe(&ProbeOptions {
                address,
                strings: 1,
                records: 0,
                timeout: PATIENCE,
                total: PATIENCE,
            });
            let report = report.map_err(|error| match error {
                ProbeError::Connect { error, .. } => {
                    not_an_origin(format!("cannot connect: {error}"))
                }
                other => not_an_origin(format!("this is no thalweg origin ({other})")),
            })?;
            shortest = shortest.min(Duration::from_nanos(report.connect_ns));
        }
        Ok(shortest)
    }

    /// Whether the far end is of this process.
    pub fn is_ours(&self) -> bool {
        !matches!(self, Self::Remote(_))
    }

    /// Whether both ends are on this machine with nothing between.
    pub fn is_this_machine(&self) -> bool {
        match self {
            Self::Loopback => true,
            Self::Remote(address) => address.ip().to_canonical().is_loopback(),
            Self::Path(_) => false,
        }
    }

    /// What the path carries each way, bytes a second of IP packets; `None`: nobody knows.
    pub fn rate(&self) -> Option<f64> {
        match self {
            Self::Path(link) => Some(link.spec().rate as f64),
            Self::Loopback | Self::Remote(_) => None,
        }
    }

    /// The legs of a forwarder that lie on what is measured.
    pub fn legs(&self) -> &'static [Leg] {
        match self {
            Self::Loopback => &[Leg::Client, Leg::Upstream],
            Self::Remote(_) | Self::Path(_) => &[Leg::Upstream],
        }
    }

    /// Where the origin listens, port 0 where it is ours.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Loopback => SocketAddr::from(([127, 0, 0, 1], 0)),
            Self::Remote(address) => *address,
            Self::Path(link) => SocketAddr::new(IpAddr::V4(link.far().address()), 0),
        }
    }

    /// What makes figures taken here doubtful, a sentence each.
    pub fn doubts(&self) -> Vec<String> {
        let Self::Path(link) = self else {
            return Vec::new();
        };
        let counters = link.counters();
        let both = [counters.up, counters.down];
        let overrun: u64 = both.iter().map(|it| it.overrun).sum();
        let late = both.iter().map(|it| it.late_mean_ns).max().unwrap_or(0);
        let rtt = link.spec().rtt.max(link.own_delay());
        let mut doubts = Vec::new();
        if overrun > 0 {
            doubts.push(format!(
                "this machine could not carry {overrun} packets of the emulated path in time, and \
                 dropped them: it is too slow for this path, or too busy"
            ));
        }
        if late as f64 > rtt.as_nanos() as f64 * LATE {
            doubts.push(format!(
                "packets of the emulated path were {} late on average, at a round trip of {}",
                units::latency(late as f64),
                units::latency(rtt.as_nanos() as f64),
            ));
        }
        doubts
    }

    /// Starts an origin at the far end, if that is ours.
    ///
    /// # Errors
    /// Why it cannot listen.
    pub fn origin(&self, options: &OriginOptions) -> Result<Option<Origin>, String> {
        let options = OriginOptions {
            command: Some(self.address()),
            ..options.clone()
        };
        let start = || Origin::start(&options, Handlers::default());
        let started = match self {
            Self::Remote(_) => return Ok(None),
            Self::Loopback => start(),
            Self::Path(link) => link.far().run(start).map_err(|error| error.to_string())?,
        };
        started
            .map(Some)
            .map_err(|error| format!("the origin cannot start: {error}"))
    }
}
