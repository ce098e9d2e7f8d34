//! Threads beside the reactors that panic: what one was doing is lost, counted and told, the
//! thread goes on, and nobody who is forwarded notices.

use super::credentials::{a_user, credentials};
use super::proxies::{asks, tunneller};
use super::*;

/// A proxy that knows one user, asks a name server and shows what it forwards, and a forward
/// whose server is checked; its configuration is watched.
fn text(directory: &Directory, server: SocketAddr, idle: u32) -> String {
    let path = |name: &str| directory.join(name).display().to_string();
    format!(
        "[global]\nwatch = true\n\
         [[forward]]\nname = \"proxy\"\nlisten = \"127.0.0.1:0\"\nmode = \"http-connect\"\n\
         idle_timeout = \"{idle}s\"\n\
         connect = {{ allow = [\"127.0.0.0/8:*\"], users = \"{}\" }}\n\
         tap = {{ format = \"text\", to = \"{}\" }}\n\
         [[forward]]\nname = \"checked\"\nlisten = \"127.0.0.1:0\"\n\
         upstream = {{ servers = [\"{server}\"], check = {{ type = \"tcp\", interval = \"100ms\" }} }}\n",
        path("users"),
        path("shown"),
    )
}

/// Each of them panics once, in the middle of what it is for.
#[test]
fn a_helper_thread_that_panics_holds_up_nobody_and_goes_on() {
    on_every_engine(|case| {
        let (echo, directory, dns) = (Echo::start(), Directory::new(), Dns::start());
        let target = format!("web.test:{}", echo.address.port());
        a_user(&directory);
        let known = credentials("ann", "secret");
        let (file, wishes) = (directory.join("thalweg.toml"), directory.join("wishes"));
        std::fs::create_dir(&wishes).unwrap();
        let wish = |thread: &str| wishes.join(thread);
        // It panics as it begins.
        std::fs::write(wish("watch"), "").unwrap();
        std::fs::write(&file, text(&directory, echo.address, 600)).unwrap();
        for (name, text) in [("resolv.conf", "options timeout:30\n"), ("hosts", "")] {
            std::fs::write(directory.join(name), text).unwrap();
        }
        let path = |name: &str| format!("\"{}\"", directory.join(name).display());
        let forwarder = Setup::configured(&file, 2)
            .case(case)
            .env("THALWEG_PROBE_PANICS", wishes.display())
            .set("global.dns_servers", format!("\"{}\"", dns.address()))
            .set("global.resolv_conf", path("resolv.conf"))
            .set("global.hosts", path("hosts"))
            .admin(&directory)
            .start();
        let admin = Admin::at(&directory.join("admin.sock"));
        let to = forwarder.address();
        let checked: SocketAddr = forwarder.addresses()[1].parse().unwrap();
        let bystander = tunneller(to, echo.address.to_string(), &known);
        let other = Bystander::of(checked);
        // A name is asked for anew each time.
        let asks_for = |name: &str, line: &str| {
            let name = format!("{name}.{target}");
            dns.set(
                name.rsplit_once(':').unwrap().0,
                Says::addresses(1, &["127.0.0.1"]),
            );
            let stream = TcpStream::connect(to).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            asks(&stream, name, line).unwrap()
        };
        let has_gone = || drop(TcpStream::connect(checked).unwrap());
        let threads = [
            "watch",
            "log",
            "tap",
            "credentials",
            "resolver",
            "admin",
            "checks",
        ];
        for (panics, thread) in (1..).zip(threads) {
            if thread != "watch" {
                std::fs::write(wish(thread), "").unwrap();
            }
            wait_until(thread, PATIENCE, || {
                match thread {
                    "log" => has_gone(),
                    "tap" => bystander.comes_in(),
                    // Whoever it was about is told that there is no answer now.
                    "credentials" => {
                        let guess = credentials("ann", &format!("guess {panics}"));
                        assert!(matches!(
                            asks(&TcpStream::connect(to).unwrap(), echo.address, &guess),
                            Ok(407 | 503)
                        ));
                    }
                    "resolver" => assert!(asks_for("one", &known) != 0),
                    "admin" => {
                        let _ = admin
                            .connect()
                            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    }
                    _ => {}
                }
                !wish(thread).exists()
            });
            bystander.goes_on();
            bystander.comes_in();
            other.goes_on();
            other.comes_in();
            forwarder.wait_for_line(&format!("the thread {thread} panicked and goes on"));
            assert_eq!(forwarder.counters().of("helper_panics"), panics, "{thread}");
        }
        // Each does what it is for.
        assert_eq!(asks_for("two", &known), 200);
        assert_eq!(asks_for("two", &credentials("ann", "wrong")), 407);
        let metrics = admin.get("/metrics");
        assert_eq!(metrics.status, 200);
        let counted = metrics.sum("thalweg_helper_panics_total") as usize;
        assert_eq!(counted, threads.len());
        std::fs::write(&file, text(&directory, echo.address, 601)).unwrap();
        forwarder.wait_for_line("reloaded: ");
        let shown = || std::fs::read_to_string(directory.join("shown")).unwrap();
        let before = shown().len();
        bystander.comes_in();
        wait_until("it is shown", PATIENCE, || shown().len() > before);
        // A check that fails is told: its server goes.
        drop((bystander, other, echo));
        forwarder.wait_for_line("is down");
        assert!(forwarder.terminate().success());
    });
}
