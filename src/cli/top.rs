//! `thalweg top`: the busiest sessions and the servers, live in a terminal.

#![allow(
    clippy::doc_markdown,
    reason = "the comments on arguments are the help text, which is not Markdown"
)]

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::widgets::{Block, Paragraph, Row, Table, TableState};
use ratatui::{DefaultTerminal, Frame};
use serde_json::{Value, json};

use super::ctl::AtArgs;
use super::ctl::table::{bytes, printable, time};
use super::output;
use crate::admin::client::{AskError, Client};
use crate::admin::view::{About, Server, Session, SessionPage};
use crate::bench::interrupt::Interrupt;

/// Sessions that are asked for.
const SESSIONS: usize = 100;

/// Between two looks at the keyboard and at signals.
const KEYS: Duration = Duration::from_millis(100);

/// Every signal that would end or stop it and can be taken: none leaves the terminal as a
/// picture needs it.
const SIGNALS: [Signal; 12] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGXCPU,
    Signal::SIGTSTP,
    Signal::SIGIO,
];

const EXAMPLES: &str = "\
Keys:
  tab      sessions, servers
  up down  choose
  s        sort sessions by rate, bytes or age
  /        show those alone that contain a text
  k        end the chosen session, or drain the chosen server; y says that it is meant
  r        take the chosen server back
  q        leave

Into a pipe it prints one plain picture.";

/// The busiest sessions and the servers, live in a terminal
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    at: AtArgs,
    /// Between two pictures
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = super::ctl::seconds)]
    interval: f64,
}

/// Shows until somebody has seen enough.
pub fn run(args: &Args) -> ExitCode {
    let terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    // Before any thread starts: they inherit the mask.
    let interrupt = terminal.then(|| Interrupt::install_for(&SIGNALS, ratatui::restore));
    let top = args.at.client().and_then(|client| {
        let mut top = Top::new(client);
        top.look()?;
        Ok(top)
    });
    let mut top = match top {
        Ok(top) => top,
        Err(error) => {
            output::complain(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    let Some(interrupt) = interrupt else {
        return output::result(top.plain().as_bytes());
    };
    let every = Duration::from_secs_f64(args.interval.clamp(0.2, 3600.0));
    let outcome = ratatui::try_init().and_then(|mut terminal| {
        let outcome = top.live(&mut terminal, every, &interrupt);
        ratatui::restore();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("the terminal: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tab {
    Sessions,
    Servers,
}

/// What keys mean at the moment.
#[derive(Debug, Clone, PartialEq)]
enum Mode {
    Look,
    /// A text to filter by is being written.
    Filter,
    /// Whether this is meant: the question, the path and the body.
    Confirm(String, String, Value),
}

/// What is shown.
struct Top {
    client: Client,
    about: About,
    sessions: Vec<Session>,
    servers: Vec<Server>,
    tab: Tab,
    sort: usize,
    filter: String,
    mode: Mode,
    chosen: TableState,
    /// What went wrong last.
    trouble: Option<String>,
}

const SORTS: [&str; 3] = ["rate", "bytes", "age"];

impl Top {
    fn new(client: Client) -> Self {
        Self {
            client,
            about: About::default(),
            sessions: Vec::new(),
            servers: Vec::new(),
            tab: Tab::Sessions,
            sort: 0,
            filter: String::new(),
            mode: Mode::Look,
            chosen: TableState::default().with_selected(0),
            trouble: None,
        }
    }

    /// Asks for all of it again.
    fn look(&mut self) -> Result<(), AskError> {
        let sort = SORTS[self.sort];
        let path = format!("/v1/sessions?sort={sort}&limit={SESSIONS}&interval_ms=300");
        let page: SessionPage = self.client.get(&path)?;
        self.sessions = page.sessions;
        self.servers = self.client.get("/v1/servers")?;
        self.about = self.client.get("/v1")?;
        Ok(())
    }

    fn live(
        &mut self,
        terminal: &mut DefaultTerminal,
        every: Duration,
        interrupt: &Interrupt,
    ) -> io::Result<()> {
        let mut looked = Instant::now();
        while !interrupt.is_raised() {
            terminal.draw(|frame| self.draw(frame))?;
            if event::poll(KEYS)?
                && let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
            {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                if control && key.code == KeyCode::Char('c') || !self.key(key.code) {
                    return Ok(());
                }
            }
            if looked.elapsed() >= every && self.mode == Mode::Look {
                looked = Instant::now();
                self.trouble = self.look().err().map(|error| error.to_string());
            }
        }
        Ok(())
    }

    /// What a key does; `false` is to leave.
    fn key(&mut self, key: KeyCode) -> bool {
        match (std::mem::replace(&mut self.mode, Mode::Look), key) {
            (Mode::Confirm(_, path, body), KeyCode::Char('y')) => {
                let done = self.client.post::<Value>(&path, &body, None);
                self.trouble = done.err().map(|error| error.to_string());
            }
            (Mode::Confirm(..), _) | (Mode::Filter, KeyCode::Enter) => {}
            (Mode::Filter, KeyCode::Esc) => self.filter.clear(),
            (Mode::Filter, key) => {
                match key {
                    KeyCode::Backspace => drop(self.filter.pop()),
                    KeyCode::Char(c) => self.filter.push(c),
                    _ => {}
                }
                self.mode = Mode::Filter;
            }
            (Mode::Look, KeyCode::Char('q') | KeyCode::Esc) => return false,
            (Mode::Look, KeyCode::Tab) => {
                self.tab = match self.tab {
                    Tab::Sessions => Tab::Servers,
                    Tab::Servers => Tab::Sessions,
                };
                self.chosen.select(Some(0));
            }
            (Mode::Look, KeyCode::Down | KeyCode::Char('j')) => self.chosen.select_next(),
            (Mode::Look, KeyCode::Up) => self.chosen.select_previous(),
            (Mode::Look, KeyCode::Char('s')) => self.sort = (self.sort + 1) % SORTS.len(),
            (Mode::Look, KeyCode::Char('/')) => self.mode = Mode::Filter,
            (Mode::Look, KeyCode::Char('k')) => self.ask_to_end(),
            (Mode::Look, KeyCode::Char('r')) => self.ask_to_take_back(),
            (Mode::Look, _) => {}
        }
        true
    }

    fn ask_to_end(&mut self) {
        let at = self.chosen.selected().unwrap_or(0);
        let asked = match self.tab {
            Tab::Sessions => self.shown_sessions().nth(at).map(|it| {
                let question = format!("end session {} of {}?", it.id, it.client);
                (
                    question,
                    "/v1/sessions/kill".to_owned(),
                    json!({ "ids": [it.id] }),
                )
            }),
            Tab::Servers => self.shown_servers().nth(at).map(|it| {
                let question = format!("drain {}/{}?", it.pool, it.address);
                (
                    question,
                    format!("/v1/servers/{}", it.id),
                    json!({ "state": "drain" }),
                )
            }),
        };
        if let Some((question, path, body)) = asked {
            self.mode = Mode::Confirm(question, path, body);
        }
    }

    fn ask_to_take_back(&mut self) {
        let at = self.chosen.selected().unwrap_or(0);
        let asked = self.shown_servers().nth(at).map(|it| {
            let question = format!("let sessions go to {}/{} again?", it.pool, it.address);
            (question, format!("/v1/servers/{}", it.id))
        });
        if let (Tab::Servers, Some((question, path))) = (self.tab, asked) {
            self.mode = Mode::Confirm(question, path, json!({ "state": "active" }));
        }
    }

    fn shown_sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.iter().filter(|it| {
            let server = it.server.as_deref().unwrap_or_default();
            let parts = [&it.client, &it.forward, server, &it.verdict];
            parts.iter().any(|part| part.contains(&self.filter))
        })
    }

    fn shown_servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|it| {
            let parts = [&it.pool, &it.address, &it.state];
            parts.iter().any(|part| part.contains(&self.filter))
        })
    }

    fn heading(&self) -> String {
        let about = &self.about;
        let ready = match about.unready.first() {
            None => "ready".to_owned(),
            Some(why) => format!("not ready: {why}"),
        };
        let line = format!(
            "thalweg {} {}, up {}, {} of {} sessions, {ready}",
            about.version,
            about.engine,
            time(about.uptime_seconds),
            about.sessions,
            about.sessions_max,
        );
        printable(&line)
    }

    /// Names of columns, their widths, and the rows.
    fn table(&self) -> (&'static [&'static str], &'static [u16], Vec<Vec<String>>) {
        match self.tab {
            Tab::Sessions => (
                &[
                    "session",
                    "client",
                    "server",
                    "age",
                    "up/s",
                    "down/s",
                    "rtt",
                    "held back by",
                ],
                &[9, 22, 22, 7, 9, 9, 8, 20],
                self.shown_sessions().map(session_row).collect(),
            ),
            Tab::Servers => (
                &[
                    "server", "state", "since", "sessions", "connects", "failed", "p99", "why",
                ],
                &[32, 11, 7, 8, 9, 8, 8, 30],
                self.shown_servers().map(server_row).collect(),
            ),
        }
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let areas = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(3),
            Constraint::Length(1),
        ]);
        let [head, body, foot] = areas.areas(frame.area());
        frame.render_widget(Paragraph::new(self.heading()), head);
        let (names, widths, rows) = self.table();
        let title = match self.tab {
            Tab::Sessions => format!(" sessions by {} ", SORTS[self.sort]),
            Tab::Servers => " servers ".to_owned(),
        };
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let widths = widths.iter().map(|width| Constraint::Length(*width));
        let table = Table::new(rows.into_iter().map(Row::new), widths)
            .header(Row::new(names.iter().copied()).style(bold))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .block(Block::bordered().title(title));
        frame.render_stateful_widget(table, body, &mut self.chosen);
        let line = match (&self.mode, &self.trouble) {
            (Mode::Confirm(question, ..), _) => format!("{question} y/n"),
            (Mode::Filter, _) => format!("/{}", self.filter),
            (Mode::Look, Some(trouble)) => trouble.clone(),
            (Mode::Look, None) => {
                "tab servers  s sort  / filter  k end or drain  r take back  q leave".to_owned()
            }
        };
        frame.render_widget(Paragraph::new(printable(&line)), foot);
    }

    /// One picture of all, for a pipe.
    fn plain(&mut self) -> String {
        let mut text = self.heading() + "\n";
        for tab in [Tab::Sessions, Tab::Servers] {
            self.tab = tab;
            let (names, widths, rows) = self.table();
            let names = names.iter().map(|name| name.to_uppercase()).collect();
            text.push('\n');
            for row in std::iter::once(names).chain(rows) {
                let mut line = String::new();
                for (cell, width) in row.iter().zip(widths) {
                    // Writing to a String cannot fail.
                    let _ = write!(line, "{cell:<width$} ", width = usize::from(*width));
                }
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }
}

fn session_row(it: &Session) -> Vec<String> {
    let rtt = it.client_tcp.as_ref().map(|leg| time(leg.rtt_seconds));
    let server = it.server.as_ref().or(it.target.as_ref());
    let row = [
        it.id.clone(),
        it.client.clone(),
        server.cloned().unwrap_or_default(),
        time(it.age_seconds),
        bytes(it.up.rate),
        bytes(it.down.rate),
        rtt.unwrap_or_default(),
        it.verdict.replace('_', " "),
    ];
    row.iter().map(|cell| printable(cell)).collect()
}

fn server_row(it: &Server) -> Vec<String> {
    let failed = it.failures.total();
    let row = [
        format!("{}/{}", it.pool, it.address),
        it.state.clone(),
        time(it.state_seconds),
        it.sessions.to_string(),
        it.connects.to_string(),
        failed.to_string(),
        it.connect.p99_seconds.map(time).unwrap_or_default(),
        it.why.clone().unwrap_or_default(),
    ];
    row.iter().map(|cell| printable(cell)).collect()
}
