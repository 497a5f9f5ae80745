//! Goal: every option means the same from both sources, and what is wrong is refused with a message that helps.

use super::*;

fn from_file(text: &str) -> anyhow::Result<RunOptions> {
    let file: Settings = toml::from_str(text)?;
    RunOptions::from_settings(file)
}

#[test]
fn a_file_may_set_everything() {
    let options = from_file(
        r#"
        queues = "100:103"
        placement = "spare:0-1"
        batch = 32
        copy-range = 128
        queue-maxlen = 1000
        rcvbuf = "8MiB"
        fail-open = true
        gso = true
        wait = "spin:50"
        nice = 0
        policy = "drop:10"
        eve = "unix:/run/eve.sock"
        eve-stats = 8
        stats = 1
        summary = "json"
        drain-limit = 2.5
        "#,
    )
    .unwrap();
    let engine = options.engine;
    assert_eq!(engine.queues, QueueRange::new(100, 103).unwrap());
    assert_eq!(engine.placement, Placement::Spare("0-1".parse().unwrap()));
    assert_eq!((engine.batch, engine.queue.maxlen), (32, 1000));
    assert_eq!(engine.queue.copy_range, CopyRange::Bytes(128));
    assert_eq!(engine.queue.rcvbuf, 8 * fanq::MIB);
    assert!(engine.queue.flags.fail_open && engine.queue.flags.gso);
    assert_eq!(engine.nice, 0);
    assert_eq!(engine.wait, Wait::Spin(Duration::from_micros(50)));
    assert_eq!(options.policy, PolicyChoice::Plain(Policy::DropShare(0.1)));
    assert_eq!(options.eve, Some(EveTarget::Socket("/run/eve.sock".into())));
    assert_eq!(options.eve_stats_every, Some(Duration::from_secs(8)));
    assert_eq!(options.stats_every, Some(Duration::from_secs(1)));
    assert_eq!(options.summary, SummaryFormat::Json);
    assert_eq!(options.drain_limit, Duration::from_millis(2500));
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let options = from_file("queues = 5").unwrap();
    assert_eq!(options.engine, EngineConfig::new(QueueRange::new(5, 5).unwrap()));
    assert_eq!((options.engine.batch, options.engine.queue.maxlen), (64, 16_384));
    assert_eq!(options.engine.queue.rcvbuf, 64 * fanq::MIB);
    assert_eq!(options.policy, PolicyChoice::Plain(Policy::Accept));
    assert_eq!(options.stats_every, None);
}

#[test]
fn the_command_line_wins_over_the_file() {
    let line = Settings { batch: Some(8), ..Settings::default() };
    let file = Settings { batch: Some(16), queue_maxlen: Some(99), ..Settings::default() };
    let joined = line.or(file);
    assert_eq!((joined.batch, joined.queue_maxlen), (Some(8), Some(99)));
}

#[test]
fn bad_values_are_named() {
    for (text, part) in [
        ("queues = '3-0'", "write 0-3"),
        ("queues = '0-70000'", "65535"),
        ("queues = '0-2000'", "1024"),
        ("queues = ''", "no queue number"),
        ("batch = 0", "batch 0 is out of range: 1 to 1024"),
        ("batch = -1", "batch"),
        ("queue-maxlen = 0", "queue-maxlen 0"),
        ("queue-maxlen = 65536", "1 to 65535"),
        ("rcvbuf = '3GiB'", "rcvbuf"),
        ("rcvbuf = 'much'", "rcvbuf"),
        ("copy-range = 0", "copy range"),
        ("copy-range = 65532", "65531"),
        ("nice = -21", "-20 to 19"),
        ("wait = 'spin'", "spin:<microseconds>"),
        ("wait = 'spin:0'", "out of range"),
        ("policy = 'reject'", "drop:<percent"),
        ("eve = 'unix:'", "FILE or unix:PATH"),
        ("eve-stats = 1", "add --eve FILE"),
        ("placement = 'spare:'", "no list of CPUs"),
        ("placement = 'here'", "same, spare"),
        ("stats = 0", "stats 0 is out of range"),
        ("que = '0'", "unknown field `que`"),
        ("queues 0", "expected"),
    ] {
        let error = format!("{:#}", from_file(text).unwrap_err());
        assert!(error.contains(part), "{text}: {error}");
    }
}
