//! Draws the table of `tubes top` for a terminal of a given size.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::board::Board;
use super::row::Row;
use crate::text::{age, cut, quantity};

/// Width of a history in the table.
const GRAPH: usize = 12;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A column: title, minimum and maximum width, whether it is aligned to the right, and its content.
/// The title fits into the minimum width.
struct Column {
    title: &'static str,
    min: usize,
    max: usize,
    right: bool,
    cell: fn(&Row) -> String,
}

const fn column(
    title: &'static str,
    min: usize,
    max: usize,
    right: bool,
    cell: fn(&Row) -> String,
) -> Column {
    Column {
        title,
        min,
        max,
        right,
        cell,
    }
}

/// From left to right.
const COLUMNS: [Column; 12] = [
    column("NOCK", 5, 16, false, |row| row.nock.clone()),
    column("TIP", 5, 16, false, |row| row.tip.clone()),
    column("SERVICE", 7, 24, false, |row| row.service.clone()),
    column("TID", 3, 10, true, |row| row.tid.clone()),
    column("STATE", 9, 11, false, |row| row.state.clone()),
    column("MSG/S", 5, 5, true, |row| {
        rate(row.traffic.map(|traffic| traffic.messages()))
    }),
    column("BYTES/S", 7, 7, true, |row| {
        rate(row.traffic.map(|traffic| traffic.bytes()))
    }),
    column("HISTORY", GRAPH, GRAPH, false, |row| {
        graph(&row.history, GRAPH)
    }),
    column("FULL/S", 6, 6, true, |row| {
        rate(row.traffic.map(|traffic| traffic.full_waits))
    }),
    column("BELL/S", 6, 6, true, |row| {
        rate(row.traffic.map(|traffic| traffic.notifications))
    }),
    column("RING", 4, 9, true, |row| row.ring.clone()),
    column("AGE", 6, 7, true, |row| row.age.map_or("-".into(), age)),
];

/// The order in which columns are chosen until the terminal is full.
const IMPORTANCE: [usize; 12] = [0, 1, 3, 4, 6, 5, 7, 2, 8, 9, 11, 10];

fn rate(number: Option<f64>) -> String {
    number.map_or("-".into(), quantity)
}

/// The end of a history as bars, scaled to its maximum.
fn graph(history: &VecDeque<f64>, width: usize) -> String {
    let some: Vec<f64> = history
        .iter()
        .skip(history.len().saturating_sub(width))
        .copied()
        .collect();
    let max = some.iter().copied().fold(0.0, f64::max);
    let bar = |n: f64| {
        if n <= 0.0 {
            return ' ';
        }
        // Any traffic shows at least the smallest bar.
        let eighths = (n / max * BARS.len() as f64).ceil() as usize;
        BARS[eighths.clamp(1, BARS.len()) - 1]
    };
    let bars: String = some.into_iter().map(bar).collect();
    format!("{bars:>width$}")
}

/// Chooses columns and their widths: as many as fit at their minimum widths, then the rest of the
/// space goes to the most important columns that need more.
fn layout(rows: &[&Row], width: usize) -> Vec<(usize, usize)> {
    let mut chosen: Vec<(usize, usize)> = Vec::new();
    let mut left = width;
    for at in IMPORTANCE {
        let needed = COLUMNS[at].min + usize::from(!chosen.is_empty());
        if left < needed {
            break;
        }
        left -= needed;
        chosen.push((at, COLUMNS[at].min));
    }
    for (at, width) in &mut chosen {
        let column = &COLUMNS[*at];
        let cells = rows.iter().map(|row| (column.cell)(row).chars().count());
        let wanted = cells.max().unwrap_or(0).clamp(column.min, column.max);
        let more = left.min(wanted - *width);
        *width += more;
        left -= more;
    }
    chosen.sort_unstable();
    chosen
}

/// Draws the table.
pub fn draw(frame: &mut Frame, board: &mut Board) {
    let area = frame.area();
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    // Three lines are not rows: summary, titles and keys.
    board.page = height.saturating_sub(3).max(1);
    let rows = board.shown();
    let offset = board.offset.min(rows.len().saturating_sub(1));
    let shown = &rows[offset..rows.len().min(offset + board.page)];
    let columns = layout(shown, width);
    let mut lines = vec![head(board, width), titles(&columns, width)];
    lines.extend(shown.iter().map(|row| line(row, &columns)));
    lines.resize(height.saturating_sub(1).max(lines.len()), Line::default());
    lines.truncate(height.saturating_sub(1));
    lines.push(foot(board, rows.len(), width));
    for (y, line) in (area.y..).zip(lines) {
        if y < area.bottom() {
            frame.render_widget(line, Rect::new(area.x, y, area.width, 1));
        }
    }
}

fn head(board: &Board, width: usize) -> Line<'static> {
    if !board.filled {
        return Line::raw("tubes: reading the store ...");
    }
    let (tubes, wrong) = board.counts();
    let (messages, bytes) = board.traffic();
    let mut text = format!("{tubes} tubes");
    if wrong > 0 {
        text += &format!(", {wrong} wrong!");
    }
    text += &format!(
        "  {} msg/s  {} bytes/s",
        quantity(messages),
        quantity(bytes)
    );
    if !board.whole {
        text += "  (own domain only)";
    }
    if !board.notes.is_empty() {
        text += &format!("  ({} left out)", board.notes.len());
    }
    if board.paused {
        text += "  PAUSED";
    }
    let text = cut(&text, width);
    let room = width.saturating_sub(text.len() + 2);
    let mut spans = vec![Span::styled(text, bold())];
    if room >= 8 {
        spans.push(Span::raw("  "));
        spans.push(Span::raw(graph(&board.total, room.min(60))));
    }
    Line::from(spans)
}

fn bold() -> Style {
    Style::default().add_modifier(Modifier::BOLD)
}

fn titles(columns: &[(usize, usize)], width: usize) -> Line<'static> {
    let cells = columns
        .iter()
        .map(|(at, width)| align(COLUMNS[*at].title, *width, COLUMNS[*at].right));
    let text = cells.collect::<Vec<_>>().join(" ");
    Line::styled(
        format!("{text:width$}"),
        Style::default().add_modifier(Modifier::REVERSED),
    )
}

fn line(row: &Row, columns: &[(usize, usize)]) -> Line<'static> {
    let mut spans = Vec::new();
    for (at, width) in columns {
        if !spans.is_empty() {
            spans.push(Span::raw(" "));
        }
        let column = &COLUMNS[*at];
        let text = align(&(column.cell)(row), *width, column.right);
        spans.push(if column.title == "STATE" && row.wrong {
            Span::styled(text, Style::default().fg(Color::Red))
        } else {
            Span::raw(text)
        });
    }
    Line::from(spans)
}

fn align(text: &str, width: usize, right: bool) -> String {
    // Only bars are not ASCII, and they already have the right width.
    let text = if text.is_ascii() {
        cut(text, width)
    } else {
        text.to_owned()
    };
    if right {
        format!("{text:>width$}")
    } else {
        format!("{text:width$}")
    }
}

fn foot(board: &Board, rows: usize, width: usize) -> Line<'static> {
    let text = if board.typing {
        format!("filter: {}_", board.filter)
    } else {
        let way = if board.reverse { " up" } else { "" };
        let mut text = format!(
            "q quit  s sort: {}{way}  r reverse  / filter",
            board.sort.word()
        );
        if !board.filter.is_empty() {
            text = format!(
                "q quit  / filter: {} ({rows})  s sort: {}{way}",
                board.filter,
                board.sort.word()
            );
        }
        text + "  space pause"
    };
    Line::raw(cut(&text, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_is_scaled_to_its_maximum() {
        let history = VecDeque::from([0.0, 1.0, 50.0, 100.0]);
        assert_eq!(graph(&history, 6), "   ▁▄█");
        assert_eq!(graph(&history, 2), "▄█");
        assert_eq!(graph(&VecDeque::new(), 3), "   ");
    }

    #[test]
    fn a_narrow_terminal_shows_fewer_columns() {
        let titles = |width| {
            let columns = layout(&[], width);
            let used: usize = columns.iter().map(|(_, width)| width + 1).sum();
            assert!(used <= width + 1, "{used} of {width}");
            columns
                .iter()
                .map(|(at, _)| COLUMNS[*at].title)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(titles(3), "");
        assert_eq!(titles(15), "NOCK TIP TID");
        assert_eq!(titles(40), "NOCK TIP TID STATE MSG/S BYTES/S");
        assert_eq!(
            titles(80),
            "NOCK TIP SERVICE TID STATE MSG/S BYTES/S HISTORY FULL/S BELL/S"
        );
        assert_eq!(titles(120).split(' ').count(), COLUMNS.len());
    }
}
