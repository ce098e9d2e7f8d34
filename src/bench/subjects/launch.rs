//! From a subject to a command line and its configuration files.
//!
//! Fairness, in one place: every subject gets the same number of workers, logs no
//! connection (nginx's and HAProxy's access logs are off by default; thalweg's
//! session records are switched off), and otherwise runs on its own defaults. The
//! variants `nginx:tuned` and `haproxy:nosplice` change one thing each.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Kind;
use super::asks::{Asks, First};
use super::size::Size;
use crate::bench::preface::SERVER_NAME;

/// What to run.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Launch {
    /// The command line; empty for `direct`.
    pub argv: Vec<String>,
    /// Added to the environment.
    pub environment: Vec<(String, String)>,
    /// Configuration: path and content.
    pub files: Vec<(PathBuf, String)>,
    /// What the program says it is.
    pub version: String,
}

/// What every subject is given.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Whom to forward to.
    pub upstream: SocketAddr,
    /// Event loops.
    pub workers: usize,
    /// Sessions at the most.
    pub sessions: usize,
    /// How large the configuration is.
    pub size: Size,
    /// What it decides by before it forwards.
    pub asks: Asks,
    /// It forwards datagrams, too: at the same number, and here those that are one question each.
    /// `None`: connections alone.
    pub single: Option<SocketAddr>,
    /// For its files.
    pub directory: &'a Path,
}

impl Terms<'_> {
    /// Where it listens, the forward that is measured last.
    fn listens(self) -> impl Iterator<Item = SocketAddr> {
        self.size
            .neighbours(self.listen)
            .chain(std::iter::once(self.listen))
    }
}

impl Kind {
    /// The command line and files of this subject.
    ///
    /// # Errors
    /// What is not installed, or lacks a part.
    pub fn launch(&self, terms: Terms<'_>) -> Result<Launch, String> {
        match self {
            Self::Direct => Ok(Launch {
                version: "no forwarder".to_owned(),
                ..Launch::default()
            }),
            Self::Thalweg {
                program,
                engine,
                data_path,
                set,
                connect,
            } => {
                let mut launch = thalweg(program.as_deref(), *engine, *data_path, set, terms)?;
                if *connect {
                    serve_requests(&mut launch, terms);
                } else if terms.asks != Asks::default() {
                    let (content, files) =
                        terms
                            .asks
                            .thalweg(terms.listen, terms.upstream, terms.directory);
                    configure(&mut launch, terms.directory.join("asks.toml"), content);
                    launch.files.extend(files);
                } else if terms.size != Size::default() || terms.single.is_some() {
                    serve_many(&mut launch, terms);
                }
                Ok(launch)
            }
            Self::Nginx { program, tuned } => nginx(program.as_deref(), *tuned, terms),
            Self::Haproxy { program, splice } => haproxy(program.as_deref(), *splice, terms),
            Self::Realm { program } => realm(program.as_deref(), terms),
            Self::Socat { program } => socat(program.as_deref(), terms),
            Self::Command { template } => Ok(command(template, terms)),
        }
    }
}

fn thalweg(
    program: Option<&Path>,
    engine: Option<&str>,
    data_path: Option<&str>,
    set: &[String],
    terms: Terms<'_>,
) -> Result<Launch, String> {
    let program = match program {
        Some(program) => program.to_owned(),
        None => std::env::current_exe()
            .map_err(|error| format!("cannot tell which program this is: {error}"))?,
    };
    let mut argv = vec![
        text(&program),
        "run".to_owned(),
        "-l".to_owned(),
        terms.listen.to_string(),
        "-r".to_owned(),
        terms.upstream.to_string(),
        "--reactors".to_owned(),
        terms.workers.to_string(),
        "--log-sessions".to_owned(),
        "off".to_owned(),
        "--log-level".to_owned(),
        "warn".to_owned(),
    ];
    for (flag, value) in [("--engine", engine), ("--data-path", data_path)] {
        argv.extend(
            value
                .into_iter()
                .flat_map(|v| [flag.to_owned(), v.to_owned()]),
        );
    }
    for pair in set {
        argv.extend(["--set".to_owned(), pair.clone()]);
    }
    Ok(Launch {
        version: output(&program, &["--version"], terms.directory)?
            .lines()
            .collect::<Vec<_>>()
            .join(", "),
        argv,
        ..Launch::default()
    })
}

/// The forward of the command line gives way to one of a file, whose clients say where
/// to go.
fn serve_requests(launch: &mut Launch, terms: Terms<'_>) {
    let configuration = terms.directory.join("proxy.toml");
    let content = format!(
        "[[forward]]\nlisten = \"{}\"\nmode = \"http-connect\"\n\
         connect = {{ allow = \"{}:*\" }}\n",
        terms.listen,
        match terms.upstream.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        },
    );
    configure(launch, configuration, content);
}

/// One pool, and as many forwards to it.
fn serve_many(launch: &mut Launch, terms: Terms<'_>) {
    let mut content = "[upstream.origin]\nservers = [\n".to_owned();
    for server in terms.size.servers(terms.upstream) {
        let _ = writeln!(content, "    \"{server}\",");
    }
    content.push_str("]\n");
    for listen in terms.listens() {
        let _ = write!(
            content,
            "\n[[forward]]\nlisten = \"{listen}\"\nupstream = \"origin\"\n"
        );
    }
    if let Some(single) = terms.single {
        let _ = write!(
            content,
            "\n[[forward]]\nprotocol = \"udp\"\nlisten = \"{listen}\"\nupstream = \"origin\"\n\
             \n[[forward]]\nprotocol = \"udp\"\nlisten = \"{single}\"\nupstream = \"origin\"\n\
             responses = 1\n",
            listen = terms.listen,
        );
    }
    configure(launch, terms.directory.join("many.toml"), content);
}

/// The forward of the command line gives way to a file.
fn configure(launch: &mut Launch, configuration: PathBuf, content: String) {
    let pair = launch.argv.iter().position(|word| word == "-l");
    if let Some(at) = pair {
        let file = ["-c".to_owned(), text(&configuration)];
        launch.argv.splice(at..at + 4, file);
    }
    launch.files.push((configuration, content));
}

fn nginx(program: Option<&Path>, tuned: bool, terms: Terms<'_>) -> Result<Launch, String> {
    let program = installed("nginx", program)?;
    let built = output(&program, &["-V"], terms.directory)?;
    let module = stream_module(&built)?;
    let configuration = terms.directory.join("nginx.conf");
    let (buffer, accept) = if tuned {
        (
            "        proxy_buffer_size 256k;\n",
            "    multi_accept on;\n",
        )
    } else {
        ("", "")
    };
    let mut content = format!(
        "{module}daemon off;\n\
         worker_processes {workers};\n\
         pid {pid};\n\
         error_log stderr crit;\n\
         events {{\n    worker_connections {connections};\n{accept}}}\n\
         stream {{\n",
        workers = terms.workers,
        pid = terms.directory.join("nginx.pid").display(),
        // Two for each session, one for each listener, and a few for itself.
        connections = terms.sessions * 2 + terms.size.forwards + 64,
    );
    let upstream = if terms.size.servers == 1 {
        terms.upstream.to_string()
    } else {
        content.push_str("    upstream origin {\n");
        for server in terms.size.servers(terms.upstream) {
            let _ = writeln!(content, "        server {server};");
        }
        content.push_str("    }\n");
        "origin".to_owned()
    };
    let (upstream, takes, looks) = match terms.asks.first {
        First::Payload => (upstream.as_str(), "", ""),
        First::Header => (upstream.as_str(), " proxy_protocol", ""),
        First::Hello => {
            let _ = write!(
                content,
                "    upstream origin {{\n        server {upstream};\n    }}\n    \
                 map $ssl_preread_server_name $leads {{\n        {SERVER_NAME} origin;\n        \
                 default 127.0.0.1:1;\n    }}\n"
            );
            ("$leads", "", "        ssl_preread on;\n")
        }
    };
    for listen in terms.listens() {
        let _ = write!(
            content,
            "    server {{\n        listen {listen}{takes};\n{looks}        \
             proxy_pass {upstream};\n{buffer}    }}\n"
        );
    }
    if let Some(single) = terms.single {
        let _ = write!(
            content,
            "    server {{\n        listen {listen} udp;\n        proxy_pass {upstream};\n    }}\n    \
             server {{\n        listen {single} udp;\n        proxy_responses 1;\n        \
             proxy_pass {upstream};\n    }}\n",
            listen = terms.listen,
        );
    }
    content.push_str("}\n");
    Ok(Launch {
        argv: vec![
            text(&program),
            "-p".to_owned(),
            text(terms.directory),
            "-e".to_owned(),
            "stderr".to_owned(),
            "-c".to_owned(),
            text(&configuration),
        ],
        version: built
            .lines()
            .next()
            .unwrap_or_default()
            .replace("nginx version: ", ""),
        files: vec![(configuration, content)],
        ..Launch::default()
    })
}

/// The stream module is built in, built as a file of its own, or absent.
fn stream_module(built: &str) -> Result<String, String> {
    let words: Vec<&str> = built.split_whitespace().collect();
    if words.contains(&"--with-stream") {
        return Ok(String::new());
    }
    let directory = words
        .iter()
        .find_map(|word| word.strip_prefix("--modules-path="))
        .unwrap_or("/usr/lib/nginx/modules");
    let file = Path::new(directory).join("ngx_stream_module.so");
    if file.exists() {
        Ok(format!("load_module {};\n", file.display()))
    } else {
        Err(
            "this nginx has no stream module (Debian: apt-get install libnginx-mod-stream)"
                .to_owned(),
        )
    }
}

fn haproxy(program: Option<&Path>, splice: bool, terms: Terms<'_>) -> Result<Launch, String> {
    let program = installed("haproxy", program)?;
    let configuration = terms.directory.join("haproxy.cfg");
    let options = if splice {
        "    option splice-request\n    option splice-response\n"
    } else {
        ""
    };
    let mut content = format!(
        "global\n    nbthread {workers}\n    maxconn {sessions}\n\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 10m\n    timeout server 10m\n{options}",
        workers = terms.workers,
        sessions = terms.sessions + 32,
    );
    let (takes, leads) = match terms.asks.first {
        First::Payload => ("", "default_backend origin".to_owned()),
        First::Header => (" accept-proxy", "default_backend origin".to_owned()),
        First::Hello => (
            "",
            format!(
                "tcp-request inspect-delay 5s\n    \
                 tcp-request content accept if {{ req.ssl_hello_type 1 }}\n    \
                 use_backend origin if {{ req.ssl_sni -i {SERVER_NAME} }}"
            ),
        ),
    };
    for (n, listen) in terms.listens().enumerate() {
        let _ = write!(
            content,
            "\nfrontend bench{n}\n    bind {listen}{takes}\n    {leads}\n"
        );
    }
    content.push_str("\nbackend origin\n");
    for (n, server) in terms.size.servers(terms.upstream).enumerate() {
        let _ = writeln!(content, "    server origin{n} {server}");
    }
    Ok(Launch {
        argv: vec![
            text(&program),
            "-db".to_owned(),
            "-q".to_owned(),
            "-f".to_owned(),
            text(&configuration),
        ],
        version: first_line(&output(&program, &["-v"], terms.directory)?),
        files: vec![(configuration, content)],
        ..Launch::default()
    })
}

fn realm(program: Option<&Path>, terms: Terms<'_>) -> Result<Launch, String> {
    let program = installed("realm", program)?;
    let mut argv = vec![
        text(&program),
        "-l".to_owned(),
        terms.listen.to_string(),
        "-r".to_owned(),
        terms.upstream.to_string(),
    ];
    if terms.single.is_some() {
        argv.push("-u".to_owned());
    }
    Ok(Launch {
        argv,
        environment: vec![("TOKIO_WORKER_THREADS".to_owned(), terms.workers.to_string())],
        version: first_line(&output(&program, &["--version"], terms.directory)?),
        ..Launch::default()
    })
}

fn socat(program: Option<&Path>, terms: Terms<'_>) -> Result<Launch, String> {
    let program = installed("socat", program)?;
    let version = output(&program, &["-V"], terms.directory)?;
    Ok(Launch {
        argv: vec![
            text(&program),
            format!(
                "TCP-LISTEN:{},bind={},reuseaddr,fork,backlog=1024,nodelay",
                terms.listen.port(),
                terms.listen.ip()
            ),
            format!("TCP:{},nodelay", terms.upstream),
        ],
        version: version
            .lines()
            .find(|line| line.contains("version"))
            .map_or_else(|| first_line(&version), first_line),
        ..Launch::default()
    })
}

fn command(template: &str, terms: Terms<'_>) -> Launch {
    let replace = |word: &str| {
        word.replace("{listen}", &terms.listen.to_string())
            .replace("{upstream}", &terms.upstream.to_string())
            .replace("{workers}", &terms.workers.to_string())
    };
    Launch {
        argv: template.split_whitespace().map(replace).collect(),
        version: "as given".to_owned(),
        ..Launch::default()
    }
}

/// Where a program is: PATH, then the directories of system programs, which are
/// not in every user's PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

fn installed(name: &str, program: Option<&Path>) -> Result<PathBuf, String> {
    match program {
        Some(program) if program.is_file() => Ok(program.to_owned()),
        Some(program) => Err(format!("there is no program {}", program.display())),
        None => find_program(name).ok_or_else(|| format!("{name} is not installed")),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// What a program prints, both streams together, within five seconds.
fn output(program: &Path, arguments: &[&str], directory: &Path) -> Result<String, String> {
    let what = || format!("{} {}", program.display(), arguments.join(" "));
    let path = directory.join("version.txt");
    let run = || {
        let file = File::create(&path)?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(String::from_utf8_lossy(&fs::read(&path)?).into_owned())
    };
    run().map_err(|error: std::io::Error| format!("cannot run `{}`: {error}", what()))
}
