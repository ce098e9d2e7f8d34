//! Columns that fit a width: pure.
//!
//! A terminal of 80 columns has no room for all that there is to say. What tells rows apart is
//! whole or cut in its middle, what else is there comes by rank, and what has no room is left out
//! rather than cut: half of an address or of a number says something else.

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// The lowest have room first; 0 is always there.
    pub(super) rank: u8,
    pub(super) kind: Kind,
}

/// What is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whole, or not at all.
    Word,
    /// Likewise, and to the right.
    Number,
    /// May be cut: its beginning says the most.
    Prose,
}

/// Of prose this much is worth a column.
const PROSE_MIN: usize = 13;

/// Rows under columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) columns: &'static [Column],
    pub(super) rows: Vec<Vec<String>>,
}

impl Grid {
    /// The columns that stand in a width, each with its own, in their order; a blank is between.
    pub(super) fn fit(&self, width: usize) -> Vec<(usize, usize)> {
        let mut by_rank: Vec<usize> = (0..self.columns.len()).collect();
        by_rank.sort_by_key(|at| self.columns[*at].rank);
        let mut taken: Vec<(usize, usize)> = Vec::new();
        let mut left = width + 1;
        for at in by_rank {
            let natural = self.natural(at);
            let least = match self.columns[at] {
                Column { rank: 0, .. } => natural.min(width),
                Column {
                    kind: Kind::Prose, ..
                } => natural.min(PROSE_MIN),
                _ => natural,
            };
            if least < left {
                left -= least + 1;
                taken.push((at, least));
            }
        }
        for (at, width) in &mut taken {
            if self.columns[*at].kind == Kind::Prose {
                let more = (self.natural(*at) - *width).min(left);
                *width += more;
                left -= more;
            }
        }
        taken.sort_unstable();
        taken
    }

    /// A row of those columns, or what they are called.
    pub(super) fn line(&self, cells: &[String], fit: &[(usize, usize)]) -> String {
        let mut line = String::new();
        for (at, width) in fit {
            let column = self.columns[*at];
            let cell = match column.kind {
                Kind::Prose => cut(&cells[*at], *width),
                Kind::Word | Kind::Number => shortened(&cells[*at], *width),
            };
            let pad = " ".repeat(width - cell.chars().count());
            let parts = match column.kind {
                Kind::Number => [pad.as_str(), &cell, " "],
                Kind::Word | Kind::Prose => [cell.as_str(), &pad, " "],
            };
            line.extend(parts);
        }
        line.truncate(line.trim_end().len());
        line
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|it| it.name.to_owned()).collect()
    }

    fn natural(&self, at: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[at].chars().count());
        let name = self.columns[at].name.chars().count();
        cells.max().unwrap_or(0).max(name)
    }
}

/// Its beginning.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept = text.chars().take(width.saturating_sub(1));
    kept.chain((width > 0).then_some('…')).collect()
}

/// Its beginning and its end, where an address has its port.
fn shortened(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width || width < 3 {
        return cut(text, width);
    }
    let behind = (width - 1).div_ceil(2);
    let before = width - 1 - behind;
    let start = text.chars().take(before);
    let end = text.chars().skip(count - behind);
    start.chain(['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        column("server", 0, Kind::Word),
        column("state", 1, Kind::Word),
        column("sessions", 3, Kind::Number),
        column("why", 2, Kind::Prose),
    ];

    const fn column(name: &'static str, rank: u8, kind: Kind) -> Column {
        Column { name, rank, kind }
    }

    fn grid() -> Grid {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        Grid {
            columns: COLUMNS,
            rows: vec![
                row(["web/127.0.0.1:7001", "up", "12", ""]),
                row([
                    "web/127.0.0.2:7001",
                    "down",
                    "0",
                    "connect refused, the first check failed",
                ]),
            ],
        }
    }

    fn lines(width: usize) -> Vec<String> {
        let grid = grid();
        let fit = grid.fit(width);
        let names = grid.names();
        let rows = std::iter::once(&names).chain(&grid.rows);
        rows.map(|row| grid.line(row, &fit)).collect()
    }

    #[test]
    fn addresses_are_whole_and_prose_has_what_is_left() {
        assert_eq!(
            lines(60),
            [
                "server             state sessions why",
                "web/127.0.0.1:7001 up          12",
                "web/127.0.0.2:7001 down         0 connect refused, the firs…",
            ]
        );
    }

    #[test]
    fn what_has_no_room_is_left_out_and_not_cut() {
        assert_eq!(
            lines(40),
            [
                "server             state why",
                "web/127.0.0.1:7001 up",
                "web/127.0.0.2:7001 down  connect refuse…",
            ]
        );
        assert_eq!(lines(25)[1], "web/127.0.0.1:7001 up");
        assert_eq!(lines(12)[1], "web/1…1:7001");
    }

    #[test]
    fn no_line_is_wider_than_there_is_room() {
        for width in 0..100 {
            for line in lines(width) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }
}
