//! `thalweg top`: sessions, servers, forwards, endings and refusals, live in a terminal.
//!
//! ```text
//! keys, signals ──► Top ──wanted──► asker (a thread) ──► the process
//!                    ▲                   │
//!                    └──── pictures ─────┘     tables ─► rows, fit ─► columns of a width
//! ```

#![allow(
    clippy::doc_markdown,
    reason = "the comments on arguments are the help text, which is not Markdown"
)]

mod fit;
mod picture;
mod screen;
mod tab;
mod tables;

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::{Value, json};

use super::ctl::AtArgs;
use super::output;
use crate::admin::client::AskError;
use crate::bench::interrupt::Interrupt;

use picture::{Done, Order, Picture, Wanted};
use tab::Tab;
use tables::Line;

/// Between two looks at the keyboard and at signals.
const KEYS: Duration = Duration::from_millis(50);

/// Between the two looks of a plain picture, of which it makes rates.
const PLAIN: Duration = Duration::from_millis(300);

const EXAMPLES: &str = "\
Keys:
  tab 1-5  sessions, servers, forwards, endings by cause, what was refused
  up down  choose; also page up, page down, home and end
  enter    the sessions of the chosen server or forward
  s        sort in another way
  /        show those alone that contain a text
  k        end the chosen session, or drain the chosen server or forward; y says that it is meant
  r        take the chosen server or forward back
  esc      show all again
  q        leave

A narrow terminal has fewer columns, and all of each. Into a pipe it prints one plain picture.";

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
    let done = if terminal {
        on_terminal(args)
    } else {
        plain(args).map(|text| output::result(text.as_bytes()))
    };
    done.unwrap_or_else(|error| {
        output::complain(&error.to_string());
        ExitCode::FAILURE
    })
}

/// One picture of all.
fn plain(args: &Args) -> Result<String, AskError> {
    let client = args.at.client()?;
    let before = Picture::of_all(&client)?;
    std::thread::sleep(PLAIN);
    let mut top = Top::new();
    top.before = Some(before);
    top.now = Some(Picture::of_all(&client)?);
    Ok(top.plain())
}

fn on_terminal(args: &Args) -> Result<ExitCode, AskError> {
    // Before any thread starts: they inherit the mask.
    let interrupt = Interrupt::install_for_all(restore);
    let client = args.at.client()?;
    let mut top = Top::new();
    // Whom there is nobody to ask is told so on an untouched terminal.
    top.now = Some(Picture::take(&client, &top.wanted())?);
    let every = Duration::from_secs_f64(args.interval.clamp(0.2, 3600.0));
    let outcome = picture::asker(client).and_then(|asker| {
        let outcome = ratatui::try_init()
            .and_then(|mut terminal| top.live(&mut terminal, every, &asker, &interrupt));
        restore();
        outcome
    });
    Ok(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("the terminal: {error}"));
            ExitCode::FAILURE
        }
    })
}

/// Waits for keys, and for the end of the terminal, which is an error: crossterm must not look for
/// keys then, for it reads on and on where there is nothing more to come (0.29, source/unix/mio.rs).
fn is_there(patience: Duration) -> io::Result<()> {
    let terminal = io::stdin();
    let mut seen = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    match nix::poll::poll(&mut seen, patience) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    match seen[0].revents() {
        Some(events) if events.intersects(gone) => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// As it was. One that is gone needs nothing, and must not be complained to.
fn restore() {
    let _ = ratatui::try_restore();
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
    /// Of this moment, and the one before of the same tab, from which rates are made.
    now: Option<Picture>,
    before: Option<Picture>,
    tab: Tab,
    /// Which order of each tab.
    sort: [usize; Tab::ALL.len()],
    filter: String,
    scope: Option<(&'static str, String)>,
    /// Nothing of this table has come yet.
    waits: bool,
    mode: Mode,
    /// The key of the chosen line, which may move, and where it was last.
    chosen: Option<String>,
    at: usize,
    /// The first line that is shown, and how many fit.
    first: usize,
    height: usize,
    /// What came of the last look and of the last order.
    trouble: Option<String>,
    said: Option<String>,
}

impl Top {
    const fn new() -> Self {
        Self {
            now: None,
            before: None,
            tab: Tab::Sessions,
            sort: [0; Tab::ALL.len()],
            filter: String::new(),
            scope: None,
            waits: false,
            mode: Mode::Look,
            chosen: None,
            at: 0,
            first: 0,
            height: 1,
            trouble: None,
            said: None,
        }
    }

    fn order(&self) -> &'static str {
        let orders = self.tab.orders();
        orders[self.sort[self.tab as usize] % orders.len()]
    }

    fn wanted(&self) -> Wanted {
        let sort = Tab::Sessions.orders()[self.sort[Tab::Sessions as usize]];
        Wanted {
            tab: self.tab,
            sort,
            scope: self.scope.clone(),
        }
    }

    /// What is shown of it: those that the filter leaves.
    fn lines(&self) -> Vec<Line> {
        let Some(now) = &self.now else {
            return Vec::new();
        };
        let mut lines = self.tab.lines(now, self.before.as_ref(), self.order());
        if !self.filter.is_empty() {
            let text = self.filter.to_lowercase();
            let has = |cell: &String| cell.to_lowercase().contains(&text);
            lines.retain(|line| line.cells.iter().any(has));
        }
        lines
    }

    fn live(
        &mut self,
        terminal: &mut DefaultTerminal,
        every: Duration,
        (orders, answers): &(Sender<Order>, Receiver<Done>),
        interrupt: &Interrupt,
    ) -> io::Result<()> {
        // It is asked again at once: rates take two looks.
        let mut asked: Option<(Instant, Wanted)> = None;
        let mut last: Option<Instant> = None;
        while !interrupt.is_raised() {
            while let Ok(done) = answers.try_recv() {
                if let Done::Seen(wanted, _) = &done
                    && asked.as_ref().is_some_and(|(_, it)| it == wanted)
                {
                    asked = None;
                }
                if matches!(done, Done::Failed(_)) {
                    asked = None;
                }
                self.take(done);
            }
            let wanted = self.wanted();
            let stale = last.is_none_or(|it| it.elapsed() >= every) && self.mode == Mode::Look;
            match &asked {
                Some((since, _)) if since.elapsed() > picture::SILENCE => {
                    let seconds = since.elapsed().as_secs();
                    self.trouble = Some(format!("no answer for {seconds} s: this is old"));
                }
                Some((_, of)) if *of == wanted => {}
                None if !stale && self.now.is_some() => {}
                // The tab, or whose sessions, have changed: at once.
                _ => {
                    let now = Instant::now();
                    last = Some(now);
                    asked = Some((now, wanted.clone()));
                    let _ = orders.send(Order::Look(wanted));
                }
            }
            terminal.draw(|frame| self.draw(frame))?;
            if !self.keys(orders)? {
                break;
            }
        }
        Ok(())
    }

    /// Waits for keys, and does what those mean that have come; `false` is to leave.
    fn keys(&mut self, orders: &Sender<Order>) -> io::Result<bool> {
        is_there(KEYS)?;
        while event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
            {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                if control && key.code == KeyCode::Char('c') || !self.key(key.code, orders) {
                    return Ok(false);
                }
            }
            is_there(Duration::ZERO)?;
        }
        Ok(true)
    }

    /// An answer has come.
    fn take(&mut self, done: Done) {
        match done {
            Done::Seen(wanted, picture) if wanted == self.wanted() => {
                self.trouble = None;
                self.waits = false;
                self.before = self.now.take();
                self.now = Some(*picture);
            }
            // Of what is not shown any more.
            Done::Seen(..) => {}
            Done::Acted => self.said = Some("done".to_owned()),
            Done::Failed(error @ AskError::Refused { .. }) => self.said = Some(error.to_string()),
            Done::Failed(error) => self.trouble = Some(format!("{error}: this is old")),
        }
    }

    /// What a key does; `false` is to leave.
    fn key(&mut self, key: KeyCode, orders: &Sender<Order>) -> bool {
        match (std::mem::replace(&mut self.mode, Mode::Look), key) {
            (Mode::Confirm(_, path, body), KeyCode::Char('y')) => {
                self.said = Some("asked".to_owned());
                let _ = orders.send(Order::Act(path, body));
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
            (Mode::Look, key) => return self.look_key(key),
        }
        true
    }

    fn look_key(&mut self, key: KeyCode) -> bool {
        self.said = None;
        match key {
            KeyCode::Char('q') => return false,
            KeyCode::Esc if self.scope.is_none() && self.filter.is_empty() => return false,
            KeyCode::Esc => {
                self.filter.clear();
                self.narrow(self.tab, None);
            }
            KeyCode::Tab => self.turn_to(1),
            KeyCode::BackTab => self.turn_to(Tab::ALL.len() - 1),
            KeyCode::Char(c @ '1'..='5') => {
                let to = c as usize - '1' as usize;
                self.turn_to(Tab::ALL.len() + to - self.tab as usize);
            }
            KeyCode::Down => self.choose(|at, _| at + 1),
            KeyCode::Up => self.choose(|at, _| at.saturating_sub(1)),
            KeyCode::PageDown => self.choose(|at, page| at + page),
            KeyCode::PageUp => self.choose(usize::saturating_sub),
            KeyCode::Home => self.choose(|_, _| 0),
            KeyCode::End => self.choose(|_, _| usize::MAX),
            KeyCode::Enter => self.look_into(),
            KeyCode::Char('s') => {
                let sort = &mut self.sort[self.tab as usize];
                *sort = (*sort + 1) % self.tab.orders().len();
            }
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char('k') => self.ask_to_end(),
            KeyCode::Char('r') => self.ask_to_take_back(),
            _ => {}
        }
        true
    }

    fn turn_to(&mut self, further: usize) {
        let at = (self.tab as usize + further) % Tab::ALL.len();
        self.narrow(Tab::ALL[at], self.scope.clone());
    }

    /// Shows another table, or other sessions: what was there before says nothing of it.
    fn narrow(&mut self, tab: Tab, scope: Option<(&'static str, String)>) {
        if (tab, &scope) == (self.tab, &self.scope) {
            return;
        }
        (self.tab, self.scope) = (tab, scope);
        (self.now, self.before, self.chosen) = (self.now.take().map(Picture::heading), None, None);
        (self.at, self.first, self.waits) = (0, 0, true);
    }

    /// The line that is chosen, where it is now.
    fn chosen_line(&mut self) -> Option<Line> {
        let mut lines = self.lines();
        let found = lines
            .iter()
            .position(|it| Some(&it.key) == self.chosen.as_ref());
        self.at = found.unwrap_or(self.at).min(lines.len().saturating_sub(1));
        (self.at < lines.len()).then(|| lines.swap_remove(self.at))
    }

    fn choose(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        self.chosen_line();
        self.at = to(self.at, self.height.max(1));
        self.chosen = None;
        self.chosen = self.chosen_line().map(|it| it.key);
    }

    /// Down to the sessions of a server or a forward.
    fn look_into(&mut self) {
        let Some(line) = self.chosen_line() else {
            return;
        };
        let key = match self.tab {
            Tab::Servers => "server",
            Tab::Forwards => "forward",
            Tab::Sessions | Tab::Endings | Tab::Refused => return,
        };
        self.filter.clear();
        self.narrow(Tab::Sessions, Some((key, line.cells[0].clone())));
    }

    fn ask_to_end(&mut self) {
        let Some(line) = self.chosen_line() else {
            return;
        };
        let Line { key, cells, .. } = &line;
        let (question, path, body) = match self.tab {
            Tab::Sessions => (
                format!("end session {key} of {}?", cells[1]),
                "/v1/sessions/kill".to_owned(),
                json!({ "ids": [key] }),
            ),
            Tab::Servers => (
                format!("drain {}?", cells[0]),
                format!("/v1/servers/{key}"),
                json!({ "state": "drain" }),
            ),
            Tab::Forwards => (
                format!("let nobody in at {}?", cells[0]),
                format!("/v1/forwards/{}/drain", crate::admin::client::segment(key)),
                Value::Null,
            ),
            Tab::Endings | Tab::Refused => return,
        };
        self.mode = Mode::Confirm(question, path, body);
    }

    fn ask_to_take_back(&mut self) {
        let Some(line) = self.chosen_line() else {
            return;
        };
        let Line { key, cells, .. } = &line;
        let (question, path, body) = match self.tab {
            Tab::Servers => (
                format!("let sessions go to {} again?", cells[0]),
                format!("/v1/servers/{key}"),
                json!({ "state": "active" }),
            ),
            Tab::Forwards => (
                format!("let clients in at {} again?", cells[0]),
                format!("/v1/forwards/{}/ready", crate::admin::client::segment(key)),
                Value::Null,
            ),
            Tab::Sessions | Tab::Endings | Tab::Refused => return,
        };
        self.mode = Mode::Confirm(question, path, body);
    }
}
