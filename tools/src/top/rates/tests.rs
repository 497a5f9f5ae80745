//! Goal: rates are right whatever counters, queues and clocks do, and what is wrong is named once, worst first.
//! Method: samples made by hand.

use super::super::fake::{detail, owner, process, queue, row, sample};
use super::super::samples::{QueueSample, SoftnetRow};
use super::board::Verdicts;
use super::*;

fn with(queue: &QueueSample, change: impl FnOnce(&mut QueueSample)) -> QueueSample {
    let mut queue = queue.clone();
    change(&mut queue);
    queue
}

/// The board after these samples, a second apart.
fn board(samples: &[&[QueueSample]]) -> Board {
    let mut board = Board::default();
    for (second, queues) in (0..).zip(samples) {
        board.take(&sample(second * 1000, queues));
    }
    board
}

fn words(board: &Board) -> Vec<String> {
    board.problems.iter().map(|problem| problem.what.clone()).collect()
}

/// Without the note that the owner of a made-up queue is not seen.
fn troubles(board: &Board) -> Vec<String> {
    words(board).into_iter().filter(|what| !what.contains("cannot be seen")).collect()
}

#[test]
fn ids_are_packets_and_what_left_with_a_verdict_is_answered() {
    let before = queue(row(3, 50));
    let now = with(&before, |q| {
        q.row.id_sequence = 1000;
        q.row.user_dropped = 100;
        q.row.queue_dropped = 7;
        q.row.queue_total = 30;
        q.socket.as_mut().unwrap().drops = 120;
    });
    let board = board(&[&[before], &[now]]);
    let line = &board.lines[0];
    let rates = [line.packets, line.lost_socket_full, line.lost_queue_full, line.unseen];
    assert_eq!(rates, [1000.0, 100.0, 7.0, 20.0].map(Some));
    // 1000 ids, 100 lost, 20 passed unseen, 30 wait.
    assert_eq!((line.answered, line.lost()), (Some(850.0), Some(107.0)));
    assert_eq!(line.wait, Some(30.0 / 850.0));
    assert_eq!((board.totals.lost(), board.totals.unseen), (Some(107.0), Some(20.0)));
}

#[test]
fn the_first_sample_has_no_rates() {
    let board = board(&[&[queue(row(0, 50))]]);
    assert_eq!((board.lines[0].packets, board.totals.packets), (None, None));
    assert_eq!(board.totals.queues, 1);
}

#[test]
fn counters_that_wrap_count_on() {
    let before = with(&queue(row(0, 50)), |q| {
        q.row.id_sequence = u32::MAX - 99;
        q.row.user_dropped = u64::from(u32::MAX);
        q.socket.as_mut().unwrap().drops = u32::MAX;
    });
    let now = with(&before, |q| {
        q.row.id_sequence = 100;
        q.row.user_dropped = 1;
        q.socket.as_mut().unwrap().drops = 1;
    });
    let line = &board(&[&[before], &[now]]).lines[0];
    assert_eq!((line.packets, line.lost_socket_full), (Some(200.0), Some(2.0)));
    assert_eq!(line.unseen, Some(0.0));
}

#[test]
fn a_queue_bound_anew_begins_at_zero_also_under_the_same_port() {
    let before = with(&queue(row(0, 50)), |q| {
        q.row.id_sequence = 1_000_000;
        q.row.queue_dropped = 500;
        q.row.queue_total = 20;
    });
    for port_id in [50, 51] {
        let now = with(&queue(row(0, port_id)), |q| q.row.id_sequence = 40);
        let board = board(&[std::slice::from_ref(&before), &[now]]);
        let line = &board.lines[0];
        assert_eq!((line.packets, line.lost()), (Some(40.0), Some(0.0)), "port {port_id}");
        assert_eq!((line.answered, line.history.len()), (Some(40.0), 1), "port {port_id}");
    }
    // Also where in so long a time a counter could have gone all the way round.
    let mut board = Board::default();
    board.take(&sample(0, &[before]));
    board.take(&sample(60_000, &[with(&queue(row(0, 50)), |q| q.row.id_sequence = 60)]));
    let line = &board.lines[0];
    assert_eq!((line.packets, line.lost(), line.history.len()), (Some(1.0), Some(0.0), 1));
}

#[test]
fn a_queue_that_appears_has_counted_since_then_and_one_that_goes_is_told_of_for_a_while() {
    let first = queue(row(0, 50));
    let second = with(&queue(row(1, 51)), |q| q.row.id_sequence = 5);
    let mut board = board(&[std::slice::from_ref(&first), &[first.clone(), second]]);
    assert_eq!(board.lines[1].packets, Some(5.0));
    board.take(&sample(2000, std::slice::from_ref(&first)));
    assert_eq!(board.lines.len(), 1);
    assert!(
        words(&board)[0].starts_with("queue 1: given up by its program"),
        "{:?}",
        words(&board)
    );
    board.take(&sample(60_000, std::slice::from_ref(&first)));
    assert!(troubles(&board).is_empty());
    assert_eq!(board.histories.len(), 1);
}

#[test]
fn time_that_stands_still_or_goes_back_gives_no_rate() {
    let before = queue(row(0, 50));
    let now = with(&before, |q| q.row.id_sequence = 10);
    for ms in [1000, 500] {
        let mut board = Board::default();
        board.take(&sample(1000, std::slice::from_ref(&before)));
        board.take(&sample(ms, std::slice::from_ref(&now)));
        assert_eq!(board.lines[0].packets, None, "{ms}");
    }
}

#[test]
fn one_socket_of_several_queues_tells_of_unseen_packets_only_together() {
    let before = [queue(row(0, 50)), queue(row(1, 50))];
    let now = before.each_ref().map(|before| {
        with(before, |q| {
            q.row.id_sequence = 100;
            q.row.user_dropped = 5;
            q.socket.as_mut().unwrap().drops = 25;
        })
    });
    let board = board(&[&before, &now]);
    assert_eq!(board.lines[0].unseen, None);
    assert_eq!(board.totals.unseen, Some(15.0));
    assert_eq!(board.lines[0].answered, Some(95.0));
}

#[test]
fn what_a_fanq_tells_becomes_rates_and_shares_also_after_it_began_anew() {
    let at = |ms, packets| {
        with(&queue(row(0, 50)), |q| {
            q.detail = Some(detail(ms, packets, 3));
            q.owner = Some(owner(9, "fanq", "fanq run"));
        })
    };
    for (before, after) in [(3200, 6400), (64_000, 3200)] {
        // The third sample has the second's answer still.
        let board = board(&[&[at(0, before)], &[at(1000, after)], &[at(1000, after)]]);
        let line = &board.lines[0];
        assert_eq!((line.bytes, line.batch, line.cpu), (Some(204_800.0), Some(32.0), Some(3)));
        assert_eq!((line.maxlen, line.batch_time_us_p99), (Some(16_384), Some(32)));
        let expected = Verdicts { accepted: 0.9, dropped: 0.1, other: 0.0 };
        assert_eq!(line.verdicts, Some(expected));
        assert_eq!(board.programs[0].policy.as_deref(), Some("drop:10"));
    }
}

#[test]
fn cpu_time_goes_to_the_thread_of_the_queue_or_is_marked_as_the_whole_programs() {
    let owned = |port, number, at, threads: &[(&str, u64)]| {
        with(&queue(row(number, port)), |q| {
            q.owner = Some(owner(9, "x", "x"));
            q.process = Some(process(9, at, threads));
        })
    };
    let shares = |names: [&str; 3]| {
        let at = |ms, used: [u64; 3]| {
            let threads: Vec<_> = names.into_iter().zip(used).collect();
            [owned(50, 0, ms, &threads), owned(51, 1, ms, &threads)]
        };
        let board = board(&[&at(0, [5, 5, 5]), &at(1000, [5, 505, 255])]);
        let both = |n: usize| {
            let line = &board.lines[n];
            (line.cpu, line.cpu_share, line.cpu_share_is_of_process)
        };
        assert_eq!(board.totals.cpu_share, Some(0.75));
        [both(0), both(1)]
    };
    let named = [(Some(1), Some(0.5), false), (Some(2), Some(0.25), false)];
    assert_eq!(shares(["fanq", "fanq-0", "fanq-1"]), named);
    let whole = (None, Some(0.75), true);
    assert_eq!(shares(["java", "pool-0", "pool-1"]), [whole, whole]);
}

#[test]
fn threads_that_were_read_once_leave_the_share_as_it_is() {
    let at = |read_ms, used| {
        with(&queue(row(0, 50)), |q| {
            q.owner = Some(owner(9, "x", "x"));
            q.process = Some(process(9, read_ms, &[("x", used)]));
        })
    };
    let mut board = Board::default();
    for (ms, queue) in [(0, at(0, 0)), (1000, at(1000, 400)), (1100, at(1000, 400))] {
        board.take(&sample(ms, &[queue]));
    }
    assert_eq!(board.lines[0].cpu_share, Some(0.4));
}

#[test]
fn skew_is_the_busiest_against_the_mean() {
    let at = |ids: [u32; 3]| {
        [0, 1, 2].map(|n| {
            with(&queue(row(n, 50 + u32::from(n))), |q| {
                q.row.id_sequence = ids[usize::from(n)];
            })
        })
    };
    let uneven = board(&[&at([0; 3]), &at([6000, 2000, 1000])]);
    assert_eq!(uneven.totals.skew, Some(2.0));
    assert_eq!(troubles(&uneven), ["queue 0: 2.0 times the packets of its program's mean queue"]);
    assert_eq!(board(&[&at([0; 3]), &at([0; 3])]).totals.skew, None);
    // Queues of different programs are not expected to be alike.
    let of_two = |ids| {
        at(ids).map(|q| with(&q, |q| q.owner = Some(owner(u32::from(q.row.queue / 2), "x", "x"))))
    };
    let two = board(&[&of_two([0; 3]), &of_two([3000, 1000, 90_000])]);
    assert_eq!(two.totals.skew, Some(1.5));
}

#[test]
fn losses_are_told_with_their_cause_once_for_all_queues_and_remembered() {
    let before = [0, 1, 2, 5].map(|n| queue(row(n, 50 + u32::from(n))));
    let lossy = before.each_ref().map(|q| {
        with(q, |q| {
            q.row.id_sequence = 1000;
            q.row.user_dropped = 300;
            q.row.queue_dropped = u64::from(q.row.queue == 2) * 1200;
        })
    });
    let mut board = board(&[&before, &lossy]);
    assert_eq!(
        troubles(&board),
        [
            "queue 2: 1,200 packets/s lost: queue full",
            "queues 0-2,5: 1,200 packets/s lost: socket full"
        ]
    );
    assert_eq!(board.problems[0].severity, Severity::Loss);
    board.take(&sample(5000, &lossy));
    assert_eq!(
        troubles(&board),
        [
            "queue 2: 1,200 packets lost: queue full, 4 s ago",
            "queues 0-2,5: 1,200 packets lost: socket full, 4 s ago"
        ]
    );
    board.take(&sample(30_000, &lossy));
    assert!(troubles(&board).is_empty());
}

#[test]
fn queues_that_nobody_answers_are_named_by_what_is_the_matter() {
    let stuck = with(&queue(row(0, 50)), |q| q.row.queue_total = 30);
    let mut hung = board(&[std::slice::from_ref(&stuck), std::slice::from_ref(&stuck)]);
    assert!(troubles(&hung).is_empty(), "too soon to tell");
    hung.take(&sample(4000, std::slice::from_ref(&stuck)));
    assert_eq!(troubles(&hung), ["queue 0: 30 packets wait, and none was answered for 3 s"]);

    let stopped = with(&stuck, |q| {
        let mut process = (*process(9, 0, &[("x", 0)])).clone();
        process.threads[0].state = 'T';
        q.owner = Some(owner(9, "x", "x"));
        q.process = Some(std::sync::Arc::new(process));
    });
    let stopped = board(&[std::slice::from_ref(&stopped); 4]);
    assert_eq!(words(&stopped), ["queue 0: its program is stopped, and its packets wait"]);

    let unconfigured = with(&queue(row(4, 50)), |q| q.row.copy_mode = 0);
    let what = troubles(&board(&[&[unconfigured]]));
    assert_eq!(what, ["queue 4: bound but not configured, so the kernel drops its packets"]);
}

#[test]
fn packets_lost_before_any_queue_are_told_by_cpu() {
    let mut board = Board::default();
    let mut sample = sample(0, &[]);
    board.take(&sample);
    sample.at = std::time::Duration::from_secs(1);
    sample.softnet = vec![SoftnetRow { cpu: 1, dropped: 40 }, SoftnetRow { cpu: 6, dropped: 9 }];
    board.take(&sample);
    assert_eq!(words(&board), ["CPU 1: 40 packets/s lost before the queues: backlog full"]);
    // It goes offline, and is in the table no more.
    sample.at = std::time::Duration::from_secs(3);
    sample.softnet.retain(|row| row.cpu != 1);
    board.take(&sample);
    assert_eq!(words(&board), ["CPU 1: 40 packets lost before the queues: backlog full, 2 s ago"]);
    sample.at = std::time::Duration::from_secs(30);
    board.take(&sample);
    assert_eq!(words(&board), Vec::<String>::new());
}

#[test]
fn a_queue_nearly_full_and_a_thread_at_its_end_are_warned_of() {
    let at = |ms, used| {
        with(&queue(row(0, 50)), |q| {
            q.row.queue_total = 14_000;
            q.row.id_sequence = u32::try_from(ms).unwrap() * 1000;
            q.owner = Some(owner(9, "fanq", "fanq run"));
            q.process = Some(process(9, ms, &[("fanq", 0), ("fanq-0", used)]));
            q.detail = Some(detail(ms, ms, 0));
        })
    };
    let board = board(&[&[at(0, 0)], &[at(1000, 990)]]);
    let expected = ["queue 0: more than 80 % full", "queue 0: its thread uses a whole CPU"];
    assert_eq!(words(&board), expected);
}

#[test]
fn nothing_grows_with_time() {
    let mut board = Board::default();
    for n in 0..3000_u32 {
        let number = u16::try_from(n % 1000).unwrap();
        board.take(&sample(u64::from(n) * 1000, &[queue(row(number, n))]));
    }
    assert!(board.histories.len() < 40, "{}", board.histories.len());
    assert!(board.lines[0].history.len() <= HISTORY_LENGTH);
}
