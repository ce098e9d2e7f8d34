//! Three forwarders are upgraded one after the other (168), and nobody notices.

use super::*;
use crate::reloading::kit::{Echo, Load};
use crate::upgrading::kit::Upgradable;

const HELD: usize = 10;

#[test]
fn b168_a_rolling_upgrade_of_three_is_noticed_by_nobody() {
    on_every_engine(|case| {
        let server = Echo::new(b'x');
        let nodes: Vec<Upgradable> = (0..3)
            .map(|_| {
                let setup = Setup::new(server.address).reactors(2).engine(case.engine);
                Upgradable::start(setup)
            })
            .collect();
        let addresses: Vec<SocketAddr> = nodes.iter().map(|it| it.forwarder.address()).collect();
        let held: Vec<TcpStream> = (0..3 * HELD)
            .map(|number| {
                let stream = TcpStream::connect(addresses[number % 3]).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                // The server's letter, and then its echo.
                (&stream).read_exact(&mut [0]).unwrap();
                stream
            })
            .collect();
        let load = Load::begin(&addresses, 3);
        for node in &nodes {
            node.upgrade();
            for stream in &held {
                assert_eq!(ask(stream).unwrap(), b'x');
            }
        }
        // It fails if one connect was refused, reset or cut short.
        load.end();
        for stream in &held {
            assert_eq!(ask(stream).unwrap(), b'x');
        }
    });
}
