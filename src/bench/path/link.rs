//! Both ends of a path and the threads between them.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use serde::Serialize;
use socket2::SockRef;

use super::PathError;
use super::carrier::{Carrier, Tally};
use super::end::End;
use super::model::Model;
use super::spec::{Loss, PathSpec};
use crate::net::tcp_info::TcpInfo;

/// RFC 2544, appendix C.2.2: for benchmarks between networks, never routed outside.
const NEAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// Handshakes that the machine's own delay is measured with, and the round trip time
/// that they are given: long enough for the threads to fall asleep in between.
const HANDSHAKES: usize = 15;
const HANDSHAKE_RTT: Duration = Duration::from_millis(2);

/// So much of the machine's own delay is taken off the path's, or a fortieth of the
/// round trip time if that is more. A wake-up or two; what is beyond that is a machine
/// that happens to be busy, and will not always be.
const TAKEN_OFF: Duration = Duration::from_micros(150);

/// A handshake that takes longer has lost its way.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// A running path. Dropping it stops its threads and takes the devices away; the
/// namespaces go with the last thread, process or socket in them.
#[derive(Debug)]
pub struct Link {
    spec: PathSpec,
    own_delay: Duration,
    // Dropped before the devices, which their threads use.
    up: Carrier,
    down: Carrier,
    near: End,
    far: End,
}

/// What a link has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LinkCounters {
    /// From the near end to the far end.
    pub up: DirectionCounters,
    /// From the far end to the near end.
    pub down: DirectionCounters,
}

/// What one direction has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DirectionCounters {
    /// IP packets delivered.
    pub packets: u64,
    /// Bytes of them, headers included.
    pub bytes: u64,
    /// Packets that found the queue full.
    #[serde(rename = "packets_dropped")]
    pub dropped: u64,
    /// Packets lost by chance.
    #[serde(rename = "packets_lost")]
    pub lost: u64,
    /// The most bytes that waited for the line, the packet on it included.
    #[serde(rename = "queue_peak_bytes")]
    pub queue_peak: u64,
    /// The longest that a packet was delivered after its time, nanoseconds: the
    /// machine was busy elsewhere.
    #[serde(rename = "late_peak_nanoseconds")]
    pub late_peak_ns: u64,
    /// The mean of that over all packets, nanoseconds. More than a few per cent of the
    /// round trip time: the figures are those of a longer path.
    #[serde(rename = "late_mean_nanoseconds")]
    pub late_mean_ns: u64,
    /// Packets that the device dropped because the link's thread came too late, or
    /// that could not be handed over. More than none: this machine is too slow for
    /// this path, and figures taken on it are worth little.
    #[serde(rename = "packets_overrun")]
    pub overrun: u64,
}

impl Link {
    /// Makes both ends and starts carrying packets between them. Takes about
    /// 40 ms, in which the machine's own delay is measured.
    ///
    /// # Errors
    /// What is not permitted or missing here, and what to do about it.
    pub fn start(spec: &PathSpec) -> Result<Self, PathError> {
        let (near, near_device) = End::make("near", NEAR, FAR, spec.mtu)?;
        let (far, far_device) = End::make("far", FAR, NEAR, spec.mtu)?;
        let devices = [Arc::new(near_device), Arc::new(far_device)];
        let own_delay = {
            // A quiet path, so that no handshake is lost and the chances of the real
            // one begin at its seed.
            let quiet = PathSpec {
                rtt: spec.rtt.min(HANDSHAKE_RTT),
                loss: Loss::default(),
                jitter: Duration::ZERO,
                ..spec.clone()
            };
            let _carriers = carriers(&quiet, quiet.rtt, &devices)?;
            let least = least_handshake(&near, &far)
                .map_err(|error| PathError::system("measure its round trip", &error))?;
            least.saturating_sub(quiet.rtt)
        };
        let taken_off = own_delay.min((spec.rtt / 40).max(TAKEN_OFF));
        let delay = spec.rtt.saturating_sub(taken_off);
        let (up, down) = carriers(spec, delay, &devices)?;
        Ok(Self {
            spec: spec.clone(),
            own_delay,
            up,
            down,
            near,
            far,
        })
    }

    /// What it was asked to be like.
    pub fn spec(&self) -> &PathSpec {
        &self.spec
    }

    /// The end for clients and forwarders, 198.18.0.1.
    pub fn near(&self) -> &End {
        &self.near
    }

    /// The end for servers, 198.18.0.2.
    pub fn far(&self) -> &End {
        &self.far
    }

    /// What this machine needs itself to carry a packet there and back, as measured
    /// at the start. It is taken off the path's delay, as far as it is no more than a
    /// few per cent of it; a path that was asked to be shorter has this one.
    pub fn own_delay(&self) -> Duration {
        self.own_delay
    }

    /// Kernel thread ids of the two directions, for pinning and for CPU time.
    pub fn thread_ids(&self) -> [i32; 2] {
        [self.up.thread_id(), self.down.thread_id()]
    }

    /// Makes `name` the congestion control of both ends: across the path and on the
    /// loopback of each.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn set_congestion(&self, name: &str) -> Result<(), PathError> {
        for end in [&self.near, &self.far] {
            end.set_congestion(name)?;
            end.set_loopback_congestion(name)?;
        }
        Ok(())
    }

    /// The counts so far.
    pub fn counters(&self) -> LinkCounters {
        LinkCounters {
            up: counters(self.up.tally(), self.near.overrun()),
            down: counters(self.down.tally(), self.far.overrun()),
        }
    }
}

fn counters(tally: &Tally, overrun: u64) -> DirectionCounters {
    let packets = tally.packets.load(Acquire);
    let refused = tally.refused.load(Relaxed);
    DirectionCounters {
        packets,
        bytes: tally.bytes.load(Relaxed),
        dropped: tally.dropped.load(Relaxed),
        lost: tally.lost.load(Relaxed),
        queue_peak: tally.queue_peak.load(Relaxed),
        late_peak_ns: tally.late_peak.load(Relaxed),
        late_mean_ns: tally.late_sum.load(Relaxed) / (packets + refused).max(1),
        overrun: overrun + refused,
    }
}

/// Both directions; `delay` is that of the threads for a round trip.
fn carriers(
    spec: &PathSpec,
    delay: Duration,
    devices: &[Arc<File>; 2],
) -> Result<(Carrier, Carrier), PathError> {
    let [near, far] = devices;
    let tolerance = spec.rtt / 200;
    // Two streams of chance that never meet: the generator walks all of u64, and half of
    // it lies between them.
    let up = Model::new(spec, delay / 2, spec.seed);
    let down = Model::new(spec, delay / 2, spec.seed ^ (1 << 63));
    Ok((
        Carrier::start("up", near, far, up, tolerance)?,
        Carrier::start("down", far, near, down, tolerance)?,
    ))
}

/// The least round trip time of handshakes as the kernel sees it, which has no share
/// of an application in it. The least: what a busy machine adds now and then must not
/// be taken off for good.
fn least_handshake(near: &End, far: &End) -> io::Result<Duration> {
    let other = |error: PathError| io::Error::other(error.to_string());
    let address = SocketAddr::from((far.address(), 0));
    let listener = far.run(|| TcpListener::bind(address)).map_err(other)??;
    let address = listener.local_addr()?;
    let datagrams = |end: &End| end.run(|| UdpSocket::bind((end.address(), 0)));
    let sender = datagrams(near).map_err(other)??;
    let receiver = datagrams(far).map_err(other)??;
    let handshakes = || {
        (0..HANDSHAKES)
            .map(|_| {
                let stream = TcpStream::connect_timeout(&address, HANDSHAKE_MAX)?;
                // Ends by a reset, which nothing follows.
                SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                Ok(TcpInfo::read(stream.as_fd())?.rtt)
            })
            .collect::<io::Result<Vec<_>>>()
    };
    let times = near.run(handshakes).map_err(other)??;
    // Behind the last reset: when this has arrived, the path is empty.
    receiver.set_read_timeout(Some(HANDSHAKE_MAX))?;
    sender.send_to(&[0], receiver.local_addr()?)?;
    receiver.recv(&mut [0])?;
    Ok(times.into_iter().min().unwrap_or_default())
}
