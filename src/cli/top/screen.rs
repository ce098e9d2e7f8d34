//! `top` on a screen of any size, and as plain text.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line as Drawn, Span};
use ratatui::widgets::Paragraph;

use super::fit::{Grid, cut};
use super::picture::Picture;
use super::tab::Tab;
use super::tables::Line;
use super::{Mode, Top};
use crate::cli::ctl::table::{bytes, printable, time};

/// Of a plain picture, which goes to a file or a pipe: wider than anything.
const PLAIN_WIDTH: usize = 1 << 16;

/// What keys do, the longest that fits is shown.
const KEYS: [&str; 3] = [
    "tab next  s sort  / filter  enter sessions of it  k end/drain  r back  q leave",
    "tab s / enter  k end/drain  r back  q",
    "k end/drain  r back  q leave",
];

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const TURNED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// What belongs together, as far as there is room, the first first.
fn joined(parts: impl IntoIterator<Item = String>, width: usize) -> String {
    let mut line = String::new();
    for part in parts {
        let more = part.chars().count() + if line.is_empty() { 0 } else { 2 };
        if line.chars().count() + more <= width {
            line.push_str(if line.is_empty() { "" } else { "  " });
            line.push_str(&part);
        }
    }
    line
}

impl Top {
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let width = usize::from(frame.area().width);
        let alarm = self.alarm(width);
        let areas = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(u16::from(alarm.is_some())),
            Constraint::Length(1),
            Constraint::Min(1),
            Constraint::Length(1),
        ]);
        let [head, second, tabs, body, foot] = areas.areas(frame.area());
        frame.render_widget(Paragraph::new(self.heading(width)), head);
        if let Some(alarm) = alarm {
            frame.render_widget(Paragraph::new(Span::styled(alarm, BOLD)), second);
        }
        frame.render_widget(Paragraph::new(self.tabs(width)), tabs);
        self.height = usize::from(body.height).saturating_sub(1);
        self.chosen_line();
        let lines = self.lines();
        let all = lines.len();
        if self.at < self.first {
            self.first = self.at;
        } else if self.at >= self.first + self.height {
            self.first = self.at + 1 - self.height;
        }
        self.first = self.first.min(all.saturating_sub(self.height));
        let shown: Vec<Line> = lines
            .into_iter()
            .skip(self.first)
            .take(self.height)
            .collect();
        let grid = self.tab.grid(&shown);
        let fit = grid.fit(width);
        let mut text = vec![Drawn::styled(grid.line(&grid.names(), &fit), BOLD)];
        for (row, at) in grid.rows.iter().zip(self.first..) {
            let line = grid.line(row, &fit);
            text.push(if at == self.at {
                Drawn::styled(format!("{line:<width$}"), TURNED)
            } else {
                Drawn::raw(line)
            });
        }
        if all == 0 {
            text.push(Drawn::raw(if self.waits {
                "one moment"
            } else if self.filter.is_empty() {
                "nothing"
            } else {
                "nothing fits the filter; esc shows all"
            }));
        }
        frame.render_widget(Paragraph::new(text), body);
        frame.render_widget(Paragraph::new(self.footing(width)), foot);
    }

    /// How much goes on, and of whom.
    fn heading(&self, width: usize) -> String {
        let Some(now) = &self.now else {
            return "thalweg".to_owned();
        };
        let about = &now.about;
        let mut parts = vec![format!(
            "{}/{} sessions",
            about.sessions, about.sessions_max
        )];
        parts.extend(self.rates(now));
        parts.push(format!("thalweg {}", about.version));
        parts.push(about.engine.clone());
        parts.push(format!("up {}", time(about.uptime_seconds)));
        printable(&joined(parts, width))
    }

    /// What all of it moves, once there are two pictures.
    fn rates(&self, now: &Picture) -> Vec<String> {
        let Some(before) = &self.before else {
            return Vec::new();
        };
        let seconds = (now.at - before.at).as_secs_f64().max(1e-3);
        let (now, then) = (&now.about.totals, &before.about.totals);
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let failed = rate(now.failures, then.failures);
        let mut parts = vec![
            format!("{:.0} new/s", rate(now.accepted, then.accepted)),
            format!("up {}/s", bytes(rate(now.up, then.up))),
            format!("down {}/s", bytes(rate(now.down, then.down))),
        ];
        if failed > 0.0 {
            parts.insert(1, format!("{failed:.1} FAILED connects/s"));
        }
        parts
    }

    /// What is wrong, above all else.
    fn alarm(&self, width: usize) -> Option<String> {
        if let Some(trouble) = &self.trouble {
            return Some(cut(&printable(&trouble.replace('\n', "; ")), width));
        }
        let unready = &self.now.as_ref()?.about.unready;
        let first = unready.first()?;
        let more = match unready.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        let room = width.saturating_sub(more.chars().count());
        Some(cut(&printable(&format!("NOT READY: {first}")), room) + &more)
    }

    /// The tables there are, which one is shown, and what of it.
    fn tabs(&self, width: usize) -> Drawn<'static> {
        let chosen = match self.filter.as_str() {
            "" => String::new(),
            filter => format!(", with {filter:?}"),
        };
        let mut of = format!("by {}{chosen}", self.order());
        if let Some((_, scope)) = &self.scope
            && self.tab == Tab::Sessions
        {
            of = format!("of {scope}, {of}");
        }
        let own = format!(" {} {of} ", self.tab.name());
        let others: Vec<Tab> = Tab::ALL.into_iter().filter(|it| *it != self.tab).collect();
        let names: usize = others.iter().map(|it| it.name().len() + 2).sum();
        let own_width = own.chars().count();
        if own_width + names > width {
            // Without the others, where there is no room for them.
            return Drawn::styled(cut(&printable(&own), width), TURNED);
        }
        let mut spans = Vec::new();
        for tab in Tab::ALL {
            if tab == self.tab {
                spans.push(Span::styled(printable(&own), TURNED));
            } else {
                spans.push(Span::raw(format!(" {} ", tab.name())));
            }
        }
        Drawn::from(spans)
    }

    fn footing(&self, width: usize) -> Span<'static> {
        match (&self.mode, &self.said) {
            (Mode::Confirm(question, ..), _) => {
                // The end of the question is what tells one from another.
                let answer = " y/n";
                let room = width.saturating_sub(answer.len());
                Span::styled(cut(&printable(question), room) + answer, BOLD)
            }
            (Mode::Filter, _) => Span::raw(cut(&printable(&format!("/{}", self.filter)), width)),
            (Mode::Look, Some(said)) => {
                Span::styled(cut(&printable(&said.replace('\n', "; ")), width), BOLD)
            }
            (Mode::Look, None) => {
                let fits = KEYS.into_iter().find(|it| it.len() <= width);
                Span::raw(fits.unwrap_or("q leave"))
            }
        }
    }

    /// One picture of all, for a pipe.
    pub(super) fn plain(&mut self) -> String {
        let mut text = self.heading(PLAIN_WIDTH) + "\n";
        if let Some(alarm) = self.alarm(PLAIN_WIDTH) {
            text.push_str(&alarm);
            text.push('\n');
        }
        for tab in Tab::ALL {
            self.tab = tab;
            let grid: Grid = tab.grid(&self.lines());
            let fit = grid.fit(PLAIN_WIDTH);
            let names = grid.names().iter().map(|it| it.to_uppercase()).collect();
            text.push('\n');
            for row in std::iter::once(&names).chain(&grid.rows) {
                text.push_str(&grid.line(row, &fit));
                text.push('\n');
            }
        }
        text
    }
}
