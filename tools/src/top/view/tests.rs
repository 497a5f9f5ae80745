//! Goal: what the screen looks like is known, at several sizes, with and without UTF-8, and no size or number breaks
//! it. Method: boards made by hand, drawn on ratatui's test terminal, compared with the texts in `screens/`, which
//! FANQ_WRITE_SCREENS=1 writes anew.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;

use super::super::detail::QueueDetail;
use super::super::fake::{detail, owner, process, queue, row, sample};
use super::super::plain::table;
use super::super::samples::QueueSample;
use super::*;

/// Six queues: four of a fanq, the third of which loses packets, and two of another program. Second by second.
fn scene(second: u32) -> Vec<QueueSample> {
    let fanq = owner(4711, "fanq", "fanq run --queues 0-3 --policy drop:10");
    let other = owner(812, "Suricata-Main", "/usr/bin/suricata -q 10:11");
    let depths = [0, 3, 40, 900, 4000, 9000, 13_500];
    let make = |number: u16| {
        let mut queue = queue(row(number, 4711 + u32::from(number)));
        let rate = 50_000 + u32::from(number) * 1111;
        queue.row.id_sequence = second * rate;
        let ms = u64::from(second) * 1000;
        if number < 4 {
            let used = ["fanq", "fanq-0", "fanq-1", "fanq-2", "fanq-3"];
            let used =
                used.map(|name| (name, if name == "fanq-2" { ms * 97 / 100 } else { ms / 3 }));
            queue.owner = Some(fanq.clone());
            queue.process = Some(process(4711, ms, &used));
            queue.detail = Some(detail(ms, u64::from(second * rate), u32::from(number)));
        } else {
            queue.owner = Some(other.clone());
            queue.process = Some(process(812, ms, &[("Suricata-Main", ms / 20), ("W#01", ms / 2)]));
        }
        match number {
            2 => {
                queue.row.queue_total = depths[second as usize % depths.len()];
                queue.row.user_dropped = u64::from(second) * 1200;
            }
            10 => queue.row.queue_total = u64::from(second % 3) * 7,
            _ => {}
        }
        queue
    };
    [0, 1, 2, 3, 10, 11].map(make).to_vec()
}

fn scene_board() -> Board {
    let mut board = Board::default();
    for second in 0..=6 {
        board.take(&sample(u64::from(second) * 1000, &scene(second)));
    }
    board
}

fn choices() -> Choices {
    Choices { live: true, ..Choices::new(Duration::from_secs(1)) }
}

fn screen(width: u16, height: u16, board: &Board, choices: &mut Choices) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| {
            let area = frame.area();
            draw(frame.buffer_mut(), area, board, choices, "12:00:05 UTC");
        })
        .unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(usize::from(width).max(1));
    let line = |row: &[ratatui::buffer::Cell]| {
        let text: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.trim_end().to_owned() + "\n"
    };
    rows.map(line).collect()
}

fn assert_screen(name: &str, shown: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/top/view/screens").join(name);
    if std::env::var_os("FANQ_WRITE_SCREENS").is_some() {
        std::fs::write(&path, shown).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shown, expected, "{name} differs; shown:\n{shown}\nexpected:\n{expected}");
}

#[test]
fn the_screen_at_the_usual_size_has_what_matters() {
    let board = scene_board();
    assert_screen("80x24.txt", &screen(80, 24, &board, &mut choices()));
}

#[test]
fn a_wide_screen_has_more() {
    let board = scene_board();
    let mut choices = Choices { glyphs: Glyphs::UNICODE, ..choices() };
    assert_screen("120x40.txt", &screen(120, 40, &board, &mut choices));
    assert_screen("200x30.txt", &screen(200, 30, &board, &mut choices));
}

#[test]
fn a_small_screen_keeps_the_figures_that_matter_most() {
    let board = scene_board();
    assert_screen("40x10.txt", &screen(40, 10, &board, &mut choices()));
}

#[test]
fn without_queues_it_says_what_to_type() {
    let mut board = Board::default();
    board.take(&sample(0, &[]));
    assert_screen("none.txt", &screen(80, 12, &board, &mut choices()));
}

#[test]
fn help_fits_the_usual_size() {
    let mut choices = Choices { help: true, ..choices() };
    assert_screen("help.txt", &screen(80, 24, &scene_board(), &mut choices));
}

#[test]
fn a_table_for_a_pipe_has_everything() {
    assert_screen("once.txt", &table(&scene_board(), &choices(), 190, "12:00:05 UTC"));
}

#[test]
fn an_accelerated_program_is_labelled_and_has_what_is_told_of_it() {
    let mut board = Board::default();
    for second in 0..=2 {
        let mut queues = scene(second);
        for queue in &mut queues[4..] {
            let told = detail(u64::from(second) * 1000, u64::from(second) * 640, 0);
            queue.detail = Some(Arc::new(QueueDetail {
                accelerated: true,
                policy: None,
                cpu: None,
                maxlen: None,
                batch_times: Vec::new(),
                ..(*told).clone()
            }));
        }
        board.take(&sample(u64::from(second) * 1000, &queues));
    }
    let shown = table(&board, &choices(), 190, "12:00:05 UTC");
    let line =
        |begin: &str| shown.lines().find(|line| line.trim_start().starts_with(begin)).unwrap();
    for part in ["812+Suricata-Main", " 32.0 ", "90/10/0"] {
        assert!(line("10 ").contains(part), "no {part} in {shown}");
    }
    assert!(line("812+Suricata-Main").contains("[accelerated] /usr/bin/suricata"), "{shown}");
    assert!(line("0 ").contains("4711 fanq"), "{shown}");
}

fn many() -> Board {
    let mut board = Board::default();
    for second in 0..2_u32 {
        let make = |number: u16| {
            let mut queue = queue(row(number, 5000 + u32::from(number)));
            queue.row.id_sequence = second * (1000 + (u32::from(number) * 37) % 128);
            queue.owner = Some(owner(77, "fanq", "fanq run --queues 0-127"));
            queue
        };
        let queues: Vec<_> = (0..128).map(make).collect();
        board.take(&sample(u64::from(second) * 1000, &queues));
    }
    board
}

/// The queues on the screen: the numbers that lines begin with.
fn queues_on(screen: &str) -> Vec<u16> {
    screen.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

#[test]
fn many_queues_scroll_and_the_sums_stay() {
    let board = many();
    let mut choices = choices();
    let first = screen(80, 24, &board, &mut choices);
    let page = u16::try_from(choices.page).unwrap();
    assert_eq!(queues_on(&first), (0..page).collect::<Vec<_>>());
    assert!(first.contains("lines 1-") && first.contains("of 128"), "{first}");
    choices.scroll(&board, 5);
    assert_eq!(queues_on(&screen(80, 24, &board, &mut choices)), (5..5 + page).collect::<Vec<_>>());
    choices.scroll(&board, isize::MAX);
    let last = screen(80, 24, &board, &mut choices);
    assert_eq!(queues_on(&last), (128 - page..128).collect::<Vec<_>>());
    assert!(last.contains("total"), "{last}");
    // A taller screen at the end has no gap below.
    let taller = screen(80, 60, &board, &mut choices);
    assert_eq!(queues_on(&taller).last(), Some(&127));
    assert_eq!(queues_on(&taller).len(), choices.page);
    choices.scroll(&board, isize::MIN);
    assert_eq!(queues_on(&screen(80, 24, &board, &mut choices))[0], 0);
}

#[test]
fn lines_are_sorted_as_wished_and_the_other_way_round() {
    let board = many();
    let mut choices = Choices { sort: SortKey::Packets, ..choices() };
    let shown = queues_on(&screen(80, 24, &board, &mut choices));
    let rate = |queue: &u16| (u32::from(*queue) * 37) % 128;
    assert!(shown.is_sorted_by_key(|queue| std::cmp::Reverse(rate(queue))), "{shown:?}");
    assert_eq!(rate(&shown[0]), 127);
    choices.reverse = true;
    assert_eq!(rate(&queues_on(&screen(80, 24, &board, &mut choices))[0]), 0);
}

#[test]
fn without_colour_there_is_none_and_the_text_is_the_same() {
    let board = scene_board();
    let drawn = |colour| {
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
        let mut choices = Choices { colour, ..choices() };
        let clock = "12:00:05 UTC";
        terminal
            .draw(|frame| {
                let area = frame.area();
                draw(frame.buffer_mut(), area, &board, &mut choices, clock);
            })
            .unwrap();
        terminal.backend().buffer().clone()
    };
    let (plain, coloured) = (drawn(false), drawn(true));
    assert!(plain.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    assert!(coloured.content.iter().any(|cell| cell.fg == Color::Red));
    let text = |buffer: &ratatui::buffer::Buffer| -> String {
        buffer.content.iter().map(ratatui::buffer::Cell::symbol).collect()
    };
    assert_eq!(text(&plain), text(&coloured));
}

proptest! {
    /// Any size, any figures: no panic, and nothing wider than the screen.
    #[test]
    fn no_size_and_no_figure_breaks_it(
        width in 0_u16..260,
        height in 0_u16..60,
        ids in proptest::collection::vec(any::<u32>(), 0..40),
        depth in any::<u64>(),
        lost in any::<u64>(),
        help in any::<bool>(),
        offset in any::<usize>(),
    ) {
        let at = |ids: &[u32], times: u64| -> Vec<QueueSample> {
            (0..).zip(ids).map(|(number, id)| {
                let mut queue = queue(row(number, 1));
                queue.row.id_sequence = id.wrapping_mul(u32::try_from(times).unwrap_or(1));
                queue.row.queue_total = depth >> times;
                queue.row.user_dropped = lost.wrapping_mul(times);
                queue.detail = Some(detail(times * 700, u64::from(*id) * times, number.into()));
                queue
            }).collect()
        };
        let mut board = Board::default();
        for times in 0..3 {
            board.take(&sample(times * 700, &at(&ids, times)));
        }
        let mut choices = Choices { offset, help, ..choices() };
        let shown = screen(width, height, &board, &mut choices);
        prop_assert!(shown.lines().all(|line| line.chars().count() <= usize::from(width)));
        table(&board, &choices, width, "12:00:05 UTC");
    }
}
