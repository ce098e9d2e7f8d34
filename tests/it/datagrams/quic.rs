//! QUIC through the forwarder: a client and servers of a library that others use, moving files.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

/// What a server says of itself before the file.
const NAME: usize = 16;

/// Who runs here: as many as a test needs, on one thread.
pub(super) struct Network {
    runtime: tokio::runtime::Runtime,
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Network {
    /// With one certificate for all these names.
    pub(super) fn new(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            certificate: made.cert.der().clone(),
            key: made.signing_key.serialize_der(),
        }
    }

    /// A server that answers each request `bytes` with its name and so many bytes.
    fn server(&self, name: &str) -> SocketAddr {
        self.server_at(name, "127.0.0.1:0".parse().unwrap())
    }

    /// Likewise, in the network of the calling thread.
    pub(super) fn server_at(&self, name: &str, at: SocketAddr) -> SocketAddr {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(self.key.clone()).unwrap();
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![b"file".to_vec()];
        let config =
            quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let _in = self.runtime.enter();
        let endpoint = quinn::Endpoint::server(config, at).unwrap();
        let address = endpoint.local_addr().unwrap();
        let mut said = name.as_bytes().to_vec();
        said.resize(NAME, b' ');
        self.runtime.spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let said = said.clone();
                tokio::spawn(async move {
                    let Ok(connection) = incoming.await else {
                        return;
                    };
                    while let Ok((mut answer, mut request)) = connection.accept_bi().await {
                        let Ok(request) = request.read_to_end(100).await else {
                            return;
                        };
                        let bytes: usize = String::from_utf8(request).unwrap().parse().unwrap();
                        let _ = answer.write_all(&said).await;
                        let _ = answer.write_all(&pattern(bytes)).await;
                        let _ = answer.finish();
                    }
                });
            }
        });
        address
    }

    /// A client that offers these protocols.
    pub(super) fn client(&self, protocols: Vec<Vec<u8>>) -> quinn::Endpoint {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = protocols;
        let mut config =
            quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut transport = quinn::TransportConfig::default();
        transport.max_idle_timeout(Some(PATIENCE.try_into().unwrap()));
        config.transport_config(Arc::new(transport));
        let _in = self.runtime.enter();
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(config);
        endpoint
    }

    /// A connection that asks for this name.
    pub(super) fn connect(
        &self,
        client: &quinn::Endpoint,
        to: SocketAddr,
        name: &str,
    ) -> quinn::Connection {
        self.runtime.block_on(async {
            let connecting = client.connect(to, name).unwrap();
            let connection = tokio::time::timeout(PATIENCE, connecting).await;
            connection
                .expect("a handshake in time")
                .expect("a handshake")
        })
    }

    /// A file of so many bytes: who sent it. It is right.
    pub(super) fn file(&self, connection: &quinn::Connection, bytes: usize) -> String {
        self.runtime.block_on(async {
            let transfer = async {
                let (mut request, mut answer) = connection.open_bi().await.unwrap();
                request
                    .write_all(bytes.to_string().as_bytes())
                    .await
                    .unwrap();
                request.finish().unwrap();
                answer.read_to_end(bytes + NAME).await.unwrap()
            };
            let got = tokio::time::timeout(PATIENCE, transfer)
                .await
                .expect("a file in time");
            let (name, file) = got.split_at(NAME);
            assert!(file == pattern(bytes), "the file is another one");
            String::from_utf8(name.to_vec()).unwrap().trim().to_owned()
        })
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 % 251) as u8).collect()
}

fn usual() -> Vec<Vec<u8>> {
    vec![b"file".to_vec()]
}

/// A forwarder by a configuration.
pub(super) fn configured(case: Case, content: &str) -> Forwarder {
    let directory = Directory::new();
    let file = directory.join("quic.toml");
    std::fs::write(&file, content).unwrap();
    // It is read before the forwarder says that it listens.
    Setup::configured(&file, 1)
        .engine(case.engine)
        .reactors(2)
        .start()
}

fn routed(case: Case, servers: [SocketAddr; 3]) -> Forwarder {
    let [a, b, other] = servers;
    let content = format!(
        "[[forward]]\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\nquic = true\nupstream = \"{other}\"\n\
         [[forward.route]]\nsni = \"a.example\"\nupstream = \"{a}\"\n\
         [[forward.route]]\nsni = \"*.b.example\"\nupstream = \"{b}\"\n"
    );
    configured(case, &content)
}

#[test]
fn b108_quic_goes_by_the_name_that_its_hello_asks_for() {
    on_every_engine(|case| {
        let network = Network::new(&["a.example", "x.b.example", "c.example"]);
        let servers = ["a", "b", "other"].map(|name| network.server(name));
        let forwarder = routed(case, servers);
        for (name, server) in [
            ("a.example", "a"),
            ("x.b.example", "b"),
            ("c.example", "other"),
        ] {
            let client = network.client(usual());
            let connection = network.connect(&client, forwarder.address(), name);
            assert_eq!(network.file(&connection, 1 << 20), server, "{name}");
            // Another connection from the same port is the same flow, which is routed once.
            let another = network.connect(&client, forwarder.address(), "a.example");
            assert_eq!(network.file(&another, 100), server, "{name}");
            connection.close(0_u32.into(), b"");
            another.close(0_u32.into(), b"");
        }
        // A hello that fills more than one datagram, as that of a client with post-quantum keys.
        let many = (0..200).map(|n| format!("protocol-{n}").into_bytes());
        let long = network.client(usual().into_iter().chain(many).collect());
        let connection = network.connect(&long, forwarder.address(), "x.b.example");
        assert_eq!(network.file(&connection, 10_000), "b");
        connection.close(0_u32.into(), b"");
        assert_eq!(forwarder.counters().of("udp_dropped_no_hello"), 0);
    });
}

#[test]
fn b108_what_cannot_be_opened_goes_the_documented_way() {
    on_every_engine(|case| {
        let (a, other) = (Server::echo(), Server::echo());
        let forwarder = routed(case, [a.address(), a.address(), other.address()]);
        let client = client(forwarder.address());
        // A version that nobody knows yet, and no QUIC at all: the forward's own servers.
        let unknown = [
            &[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 2][..],
            b"id",
            &[2],
            b"me",
            &[7; 1200],
        ]
        .concat();
        assert_eq!(ask(&client, &unknown), unknown);
        let plain = super::client(forwarder.address());
        assert_eq!(ask(&plain, b"\x01 no QUIC"), b"\x01 no QUIC");
        // One without a byte is a datagram, too, and none of QUIC.
        let empty = super::client(forwarder.address());
        assert_eq!(ask(&empty, b""), b"");
        // One that was cut short on the way: it waits for more, and ends with its time.
        let cut = super::client(forwarder.address());
        cut.send(&half_hello()).unwrap();
        wait_for_counter(&forwarder, "udp_dropped_no_hello", 1);
        assert_eq!((other.heard(), a.heard()), (3, 0));
        assert_eq!(forwarder.counters().of("udp_flows"), 3);
    });
}

/// The first datagram of a hello that needs another one, which never comes.
fn half_hello() -> Vec<u8> {
    let front = [0xc0, 0, 0, 0, 1, 2, b'i', b'd', 0, 0, 0x44, 0x9e];
    [&front[..], &[3; 1182]].concat()
}

/// They are charged as connections are, and who may not come in is not looked at.
#[test]
fn b108_a_hello_that_never_ends_counts_against_its_client() {
    on_every_engine(|case| {
        let server = Server::echo();
        let start = |keys: &str| {
            let content = format!(
                "[[forward]]\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\nquic = true\n\
                 sniff_timeout = \"5s\"\nupstream = \"{}\"\n{keys}",
                server.address()
            );
            configured(case, &content)
        };
        // All within `sniff_timeout`, also on a busy machine: who has waited for so long gives his place back.
        let send = |forwarder: &Forwarder, times: usize| {
            for client in (0..10).map(|_| super::client(forwarder.address())) {
                for _ in 0..times {
                    client.send(&half_hello()).unwrap();
                }
            }
        };
        let fast = start("connect_rate = \"1/h\"\nconnect_burst = 3\n");
        let slow = start("connect_rate = \"1/h\"\nconnect_burst = 10\n");
        let many = start("max_per_client = 3\n");
        let denied = start("access = [\"deny 127.0.0.0/8\"]\n");
        for (forwarder, times) in [(&fast, 1), (&slow, 2), (&many, 1), (&denied, 1)] {
            send(forwarder, times);
        }
        let no_hello = "udp_dropped_no_hello";
        wait_for_counter(&denied, "denied_access", 10);
        wait_for_counter(&fast, "denied_connect_rate", 7);
        wait_for_counter(&many, "denied_max_per_client", 7);
        wait_for_counter(&fast, no_hello, 3);
        // Once, however many datagrams it takes.
        wait_for_counter(&slow, no_hello, 20);
        assert_eq!(slow.counters().of("denied_connect_rate"), 0);
        // Places are given back with them.
        wait_for_counter(&many, no_hello, 3);
        let plain = super::client(many.address());
        assert_eq!(ask(&plain, b"\x01 no QUIC"), b"\x01 no QUIC");
        assert_eq!(denied.counters().of(no_hello), 0);
        assert_eq!(server.heard(), 1);
    });
}

/// Between a client and a forwarder, as a NAT: it may forget the port that it sent from.
struct Nat {
    address: SocketAddr,
    /// How often it has forgotten.
    ports: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Nat {
    fn before(forwarder: SocketAddr) -> Self {
        let inside = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = inside.local_addr().unwrap();
        inside.set_nonblocking(true).unwrap();
        let outside = move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(forwarder).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let (ports, ends) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (wanted, ending) = (ports.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            let (mut out, mut forgotten, mut client) = (outside(), 0, None);
            let mut room = vec![0; 70_000];
            while !ending.load(Ordering::Relaxed) {
                let mut idle = true;
                if wanted.load(Ordering::Relaxed) != forgotten {
                    forgotten = wanted.load(Ordering::Relaxed);
                    out = outside();
                }
                while let Ok((len, from)) = inside.recv_from(&mut room) {
                    client = Some(from);
                    let _ = out.send(&room[..len]);
                    idle = false;
                }
                while let (Ok(len), Some(client)) = (out.recv(&mut room), client) {
                    let _ = inside.send_to(&room[..len], client);
                    idle = false;
                }
                if idle {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        });
        Self {
            address,
            ports,
            ends,
            thread: Some(thread),
        }
    }

    fn forget_the_port(&self) {
        self.ports.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn b109_a_connection_of_quic_survives_a_change_of_its_clients_port() {
    on_every_engine(|case| {
        let network = Network::new(&["a.example"]);
        let servers: Vec<SocketAddr> = (0..4).map(|n| network.server(&n.to_string())).collect();
        let list: Vec<String> = servers.iter().map(|it| format!("\"{it}\"")).collect();
        let content = format!(
            "[[forward]]\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\n\
             quic = true\nupstream = [{}]\n",
            list.join(", ")
        );
        let forwarder = configured(case, &content);
        for _ in 0..4 {
            let nat = Nat::before(forwarder.address());
            let client = network.client(usual());
            let connection = network.connect(&client, nat.address, "a.example");
            let server = network.file(&connection, 100_000);
            for _ in 0..3 {
                nat.forget_the_port();
                assert_eq!(network.file(&connection, 300_000), server);
            }
            connection.close(0_u32.into(), b"");
        }
        // One flow for each port, and no more.
        assert!(forwarder.counters().of("udp_flows") <= 4 * 4);
        // Who knows no id gets a server by the policy, and nobody else's.
        let stranger = super::client(forwarder.address());
        stranger.send(&[&[0x45][..], &[9; 40]].concat()).unwrap();
        wait_for_counter(&forwarder, "udp_flows", 4 * 4);
    });
}
