//! Where both programs run: namespaces, stand-ins for servers, and files that are the system's elsewhere.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use super::original::Original;
use super::survey::Plan;

/// Of the namespace of servers.
const FAR: &str = "far";

/// How long a program may take until its listeners accept.
const START: Duration = Duration::from_secs(20);

/// What both ends of a session wait for at the most.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where everything that is written goes; gone with the namespace of mounts.
const SCRATCH: &str = "/run/thalweg-check";

/// See the module's documentation.
pub(super) struct Field<'a>(&'a Plan);

/// A program that runs; ended with this, and whatever it has started.
pub(super) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        // Workers of a master, or what went to the background: this is the first process here, so they are its own by now.
        while end_children() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Ends whoever is a child of this process; whether there was one.
fn end_children() -> bool {
    let own = nix::unistd::Pid::this();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |number: &i32| {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parent == Some(own.as_raw())
    };
    let mut any = false;
    for number in numbers.filter(is_child) {
        let child = nix::unistd::Pid::from_raw(number);
        let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(child, None);
        any = true;
    }
    any
}

fn run(line: &str) -> Result<(), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (program, arguments) = words.split_first().ok_or("nothing to run")?;
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{line}: {}", said.trim()))
}

impl<'a> Field<'a> {
    /// Makes the two networks and the servers that `plan` knows of.
    pub(super) fn new(plan: &'a Plan) -> Result<Self, String> {
        // Logs, sockets and pid files of the original stay in here.
        for place in ["/run", "/var/log"] {
            run(&format!("mount -t tmpfs tmpfs {place}"))?;
        }
        for place in [SCRATCH, "/run/netns", "/run/haproxy", "/var/log/nginx"] {
            fs::create_dir_all(place).map_err(|error| format!("{place}: {error}"))?;
        }
        Self::name_servers(plan)?;
        run("ip link set lo up")?;
        run(&format!("ip netns add {FAR}"))?;
        run(&format!(
            "ip link add wire type veth peer name wire netns {FAR}"
        ))?;
        run(&format!("ip -n {FAR} link set lo up"))?;
        for (place, own) in [("", "198.18.255.1"), ("-n far", "198.18.255.2")] {
            run(&format!("ip {place} addr add {own}/30 dev wire"))?;
            run(&format!("ip {place} link set wire up"))?;
        }
        for ip in &plan.near {
            run(&format!("ip addr add {ip} dev lo"))?;
        }
        let servers = plan.servers.iter().chain(&plan.udp_servers);
        for server in servers.filter(|it| !it.ip().is_loopback()) {
            // Several ports of one address: it is there already.
            let _ = run(&format!(
                "ip -n {FAR} addr add {} dev lo nodad",
                server.ip()
            ));
        }
        run("ip route add default via 198.18.255.2")?;
        run(&format!("ip -n {FAR} route add default via 198.18.255.1"))?;
        run("ip -6 addr add fd00:18::1/64 dev wire nodad")?;
        run(&format!(
            "ip -n {FAR} -6 addr add fd00:18::2/64 dev wire nodad"
        ))?;
        run("ip -6 route add default via fd00:18::2")?;
        run(&format!("ip -n {FAR} -6 route add default via fd00:18::1"))?;
        Self::serve(plan)?;
        Ok(Self(plan))
    }

    /// Names of servers are addresses of stand-ins, by the hosts file.
    fn name_servers(plan: &Plan) -> Result<(), String> {
        let mut hosts = String::from("127.0.0.1 localhost\n");
        for (name, ip) in &plan.names {
            let _ = writeln!(hosts, "{ip} {name}");
        }
        for (name, text) in [("hosts", hosts.as_str()), ("resolv.conf", "")] {
            let file = Path::new(SCRATCH).join(name);
            fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
            let system = Path::new("/etc").join(name);
            if let Ok(system) = system.canonicalize() {
                run(&format!(
                    "mount --bind {} {}",
                    file.display(),
                    system.display()
                ))?;
            }
        }
        Ok(())
    }

    /// A stand-in for each server: behind the wire, or beside the forwarder if it is on loopback.
    fn serve(plan: &Plan) -> Result<(), String> {
        let far = File::open(Path::new("/run/netns").join(FAR));
        let far = far.map_err(|error| format!("namespace {FAR}: {error}"))?;
        let all = [&plan.servers, &plan.udp_servers];
        let of = |beside: bool| {
            all.map(|them| {
                let them = them.iter().copied();
                let them = them.filter(|it| it.ip().is_loopback() == beside);
                them.collect::<Vec<SocketAddr>>()
            })
        };
        let behind = of(false);
        let stands = thread::spawn(move || {
            setns(&far, CloneFlags::CLONE_NEWNET).map_err(|error| format!("setns: {error}"))?;
            stand_in(&behind)
        });
        stands
            .join()
            .unwrap_or_else(|_| Err("a thread panicked".to_owned()))?;
        stand_in(&of(true))
    }

    /// Runs the user's program on the user's file, until its listeners accept.
    pub(super) fn start_original(
        &self,
        original: Original,
        file: &Path,
    ) -> Result<Running, String> {
        let file = file
            .canonicalize()
            .map_err(|error| format!("{}: {error}", file.display()))?;
        match original {
            Original::Haproxy => {
                let mut command = Command::new("haproxy");
                self.start(command.arg("-db").arg("-f").arg(file))
            }
            Original::Nginx => {
                // What the file has itself must not be said twice.
                let mut globals = vec![
                    "daemon off;".to_owned(),
                    "master_process off;".to_owned(),
                    format!("pid {SCRATCH}/nginx.pid;"),
                    format!("error_log {SCRATCH}/nginx.log;"),
                ];
                loop {
                    let mut command = Command::new("nginx");
                    command
                        .arg("-c")
                        .arg(&file)
                        .arg("-g")
                        .arg(globals.join(" "));
                    let why = match self.start(&mut command) {
                        Ok(running) => return Ok(running),
                        Err(why) => why,
                    };
                    let twice = globals.iter().position(|it| {
                        let word = it.split(' ').next().unwrap_or_default();
                        why.contains(&format!("\"{word}\" directive is duplicate"))
                    });
                    let module = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;";
                    match twice {
                        Some(at) => drop(globals.remove(at)),
                        None if why.contains("unknown directive \"stream\"")
                            && !globals.iter().any(|it| it == module) =>
                        {
                            globals.push(module.to_owned());
                        }
                        None => return Err(why),
                    }
                }
            }
        }
    }

    /// Runs thalweg on what the file has become.
    pub(super) fn start_ours(&self, toml: &str) -> Result<Running, String> {
        let file: PathBuf = Path::new(SCRATCH).join("thalweg.toml");
        fs::write(&file, toml).map_err(|error| format!("{}: {error}", file.display()))?;
        let this = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(this);
        command.arg("run").arg("-c").arg(&file);
        command.args(["--log-to", "/dev/null", "--set", "admin.listen=off"]);
        self.start(&mut command)
    }

    fn start(&self, command: &mut Command) -> Result<Running, String> {
        let path = std::env::var("PATH").unwrap_or_default();
        let said = Path::new(SCRATCH).join("said");
        let log = File::create(&said).map_err(|error| format!("{}: {error}", said.display()))?;
        let again = log.try_clone().map_err(|error| error.to_string())?;
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(again)
            .spawn()
            .map_err(|error| format!("{program} does not start: {error}"))?;
        let mut running = Running(child);
        let begun = Instant::now();
        let mut left: Vec<SocketAddr> = self.0.listeners().collect();
        let mut ports: Vec<SocketAddr> = self.0.ports().collect();
        loop {
            left.retain(|it| TcpStream::connect_timeout(it, PATIENCE).is_err());
            ports.retain(|it| !is_bound(it.port()));
            if left.is_empty() && ports.is_empty() {
                return Ok(running);
            }
            // A program that goes to the background leaves this one behind, with success.
            let ended = running.0.try_wait().ok().flatten();
            if ended.is_some_and(|it| !it.success()) || begun.elapsed() > START {
                let text = fs::read_to_string(&said).unwrap_or_default();
                return Err(format!(
                    "{program} does not listen on {}: {}",
                    left.first().unwrap_or_else(|| &ports[0]),
                    text.trim()
                ));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether some socket of datagrams has this port.
fn is_bound(port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    ["/proc/net/udp", "/proc/net/udp6"].iter().any(|table| {
        let table = fs::read_to_string(table).unwrap_or_default();
        let mut local = table.lines().filter_map(|it| it.split_whitespace().nth(1));
        local.any(|it| it.ends_with(&wanted))
    })
}

/// Servers at these addresses, for streams and for datagrams, in the calling thread's network.
fn stand_in([servers, udp_servers]: &[Vec<SocketAddr>; 2]) -> Result<(), String> {
    let absent =
        |server, error: std::io::Error| format!("no stand-in for the server {server}: {error}");
    for server in udp_servers {
        let socket = UdpSocket::bind(server).map_err(|error| absent(server, error))?;
        let own = format!("{server}\n").into_bytes();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // An answer that nobody takes is told of by the next receive.
            loop {
                if let Ok((len, client)) = socket.recv_from(&mut buffer) {
                    let answer = [&own[..], &buffer[..len]].concat();
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
    }
    for server in servers {
        let listener = TcpListener::bind(server).map_err(|error| absent(server, error))?;
        let own = server.to_string();
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let own = own.clone();
                thread::spawn(move || serve(client, &own));
            }
        });
    }
    Ok(())
}

/// Says who it is, then what it is told, and at the client's end that it has seen that.
fn serve(mut client: TcpStream, own: &str) -> std::io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.write_all(format!("{own}\n").as_bytes())?;
    let mut buffer = [0; 4096];
    loop {
        match client.read(&mut buffer)? {
            0 => break,
            len => client.write_all(&buffer[..len])?,
        }
    }
    // Whoever cuts the answer off when the question has ended has done so by now.
    thread::sleep(Duration::from_millis(50));
    client.write_all(b"end\n")
}
