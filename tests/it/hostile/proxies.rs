//! Clients of a proxy that ask for more than they may have.

use super::*;

/// A proxy for everything on loopback, with these keys besides.
pub(super) fn proxy(case: Case, directory: &Directory, keys: &str) -> Setup {
    let file = directory.join("proxy.toml");
    let text = format!(
        "[[forward]]\nname = \"proxy\"\nlisten = \"127.0.0.1:0\"\nmode = \"http-connect\"\n\
         connect = {{ allow = [\"127.0.0.0/8:*\"], {keys} }}\n"
    );
    std::fs::write(&file, text).unwrap();
    Setup::configured(&file, 1).case(case)
}

/// What a request for this target is answered, with a line more in it.
pub(super) fn asks(mut stream: &TcpStream, to: impl ToString, line: &str) -> io::Result<u16> {
    let to = to.to_string();
    write!(stream, "CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{line}\r\n")?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let status = head.get(9..12).and_then(|it| std::str::from_utf8(it).ok());
    Ok(status.and_then(|it| it.parse().ok()).unwrap_or(0))
}

/// Somebody who has a tunnel through this proxy to this target, an [`Echo`], and says this to get it.
pub(super) fn tunneller(proxy: SocketAddr, to: String, line: &str) -> Bystander<'_> {
    Bystander::who(move || {
        let stream = TcpStream::connect_timeout(&proxy, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(asks(&stream, &to, line).unwrap(), 200);
        stream
    })
}

/// One connection that would become thousands of sessions: CONNECT to the proxy itself,
/// again and again.
#[test]
fn a_proxy_is_no_target_of_itself() {
    on_every_engine(|case| {
        let (echo, directory) = (Echo::start(), Directory::new());
        let forwarder = proxy(case, &directory, "header_timeout = \"60s\"").start();
        let to = forwarder.address();
        let bystander = tunneller(to, echo.address.to_string(), "");
        let mut attackers = Vec::new();
        for n in 1..60 {
            let stream = connect_from([0, n], to).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let asked = asks(&stream, to, "").unwrap();
            assert_eq!(asked, 403, "a tunnel to itself");
            attackers.push(stream);
        }
        bystander.goes_on();
        bystander.comes_in();
        let counters = forwarder.counters();
        assert!(counters.of("accepted") <= 66, "{}", counters.of("accepted"));
        assert_eq!(counters.of("http_connect_403"), 59);
        drop((attackers, bystander));
        forwarder.check_idle();
    });
}

/// Requests that come a byte at a time: they end with `header_timeout`, and hold up nobody.
#[test]
fn requests_that_drip_end_in_time_and_hold_up_nobody() {
    on_every_engine(|case| {
        let (echo, directory) = (Echo::start(), Directory::new());
        let forwarder = proxy(case, &directory, "header_timeout = \"1s\"").start();
        let to = forwarder.address();
        let bystander = tunneller(to, echo.address.to_string(), "");
        let drips: Vec<TcpStream> = (0..50)
            .map(|_| connect_from([0, 66], to).unwrap())
            .collect();
        let request = b"CONNECT a.test:443 HTTP/1.1\r\nHost: ";
        for byte in request {
            for mut drip in &drips {
                // Whoever was turned away meanwhile is told so.
                let _ = drip.write_all(&[*byte]);
            }
            bystander.goes_on();
            bystander.comes_in();
            std::thread::sleep(Duration::from_millis(60));
        }
        wait_until("none of them is left", PATIENCE, || {
            forwarder.counters().of("http_connect_408") == drips.len() as u64
        });
        drop((drips, bystander));
        forwarder.check_idle();
    });
}

/// A name with sixteen addresses that do not answer, asked for by very many clients of one
/// address at once while descriptors are few.
#[test]
fn names_of_silent_addresses_leave_descriptors_for_others() {
    on_every_engine(|case| {
        let (echo, directory, dns) = (Echo::start(), Directory::new(), Dns::start());
        let any = SocketAddr::new(Ipv4Addr::new(127, 0, 8, 1).into(), 0);
        let first = Listener::with(any, 0, None);
        let port = first.address().port();
        let mut silent = vec![first];
        for last in 2..=16 {
            let at = SocketAddr::new(Ipv4Addr::new(127, 0, 8, last).into(), port);
            silent.push(Listener::with(at, 0, None));
        }
        let fillers: Vec<_> = silent.iter().map(Listener::fill_accept_queue).collect();
        let addresses: Vec<String> = (1..=16).map(|last| format!("127.0.8.{last}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        dns.set("silent.test", Says::addresses(300, &addresses));
        let setup = proxy(case, &directory, "header_timeout = \"60s\"");
        let empty = directory.join("hosts");
        std::fs::write(&empty, "").unwrap();
        let forwarder = setup
            .wrapped(&["prlimit", "--nofile=300:300"])
            .set("global.dns_servers", format!("\"{}\"", dns.address()))
            .set("global.hosts", format!("\"{}\"", empty.display()))
            .start();
        let to = forwarder.address();
        let bystander = tunneller(to, echo.address.to_string(), "");
        let attackers: Vec<TcpStream> = (0..200)
            .filter_map(|_| {
                let mut stream = connect_from([0, 66], to).ok()?;
                let _ = write!(
                    stream,
                    "CONNECT silent.test:{port} HTTP/1.1\r\nHost: a\r\n\r\n"
                );
                Some(stream)
            })
            .collect();
        // Races begin, and want a descriptor for each address.
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            bystander.goes_on();
            bystander.comes_in();
            std::thread::sleep(Duration::from_millis(100));
        }
        let records = forwarder.sessions();
        let short = |it: &&Record| it.cause() == "no_descriptors";
        assert_eq!(
            records.iter().filter(short).count(),
            0,
            "it ran out of them"
        );
        drop((attackers, fillers, bystander));
        forwarder.check_idle();
    });
}
