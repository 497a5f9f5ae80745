//! Goal: every option means the same from both sources, and what is wrong is refused with a message that helps.

use fanq::{Fate, FaultConfig, InspectDeadline, OverloadConfig, Shed};

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
        gso = "required"
        conntrack = "wanted"
        uid-gid = false
        wait = "spin:50"
        nice = 0
        policy = "drop:10"
        eve = "unix:/run/eve.sock"
        eve-stats = 8
        mode = "route:7,bypass"
        bypass-after = 10
        bypass-mark = 16
        bypass-by = "ct"
        on-overload = "accept"
        overload-depth = 700
        copy-under-load = "meta"
        handover = "/run/fanq.sock"
        on-orphan = "accept"
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
    let wish = |flag| engine.queue.flags.of(flag);
    assert_eq!(
        (wish(QueueFlag::FailOpen), wish(QueueFlag::Gso)),
        (FlagWish::Required, FlagWish::Required)
    );
    assert_eq!(
        (wish(QueueFlag::Conntrack), wish(QueueFlag::UidGid)),
        (FlagWish::Wanted, FlagWish::Off)
    );
    assert_eq!(wish(QueueFlag::SecurityContext), FlagWish::Off);
    assert_eq!(engine.nice, 0);
    assert_eq!(engine.wait, Wait::Spin(Duration::from_micros(50)));
    assert_eq!(options.policy, PolicyChoice::Plain(Policy::DropShare(0.1)));
    assert_eq!(options.eve, Some(EveTarget::Socket("/run/eve.sock".into())));
    assert_eq!(options.eve_stats_every, Some(Duration::from_secs(8)));
    assert_eq!(
        engine.overload,
        Some(OverloadConfig { depth: 700, shed: Shed::Accept, copy_range: Some(CopyRange::Meta) })
    );
    assert_eq!(Ok(options.mode), "route:7,bypass".parse());
    let mark = "0x10".parse().unwrap();
    assert_eq!(options.bypass, Some(Bypass { after: 10, mark, by: BypassBy::Ct }));
    assert_eq!(options.handover, Some("/run/fanq.sock".into()));
    assert_eq!(options.on_orphan, Fate::Accept);
    assert_eq!(options.stats_every, Some(Duration::from_secs(1)));
    assert_eq!(options.summary, SummaryFormat::Json);
    assert_eq!(options.drain_limit, Duration::from_millis(2500));
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let options = from_file("queues = 5").unwrap();
    let mut usual = EngineConfig::new(QueueRange::new(5, 5).unwrap());
    usual.fault.deadline = Some(InspectDeadline { limit: Duration::from_secs(1), required: false });
    assert_eq!(options.engine, usual);
    assert_eq!((options.engine.batch, options.engine.queue.maxlen), (64, 16_384));
    assert_eq!(options.engine.queue.rcvbuf, 64 * fanq::MIB);
    assert_eq!(options.policy, PolicyChoice::Plain(Policy::Accept));
    assert_eq!(options.mode, Mode::Accept);
    assert_eq!(options.bypass, None);
    assert_eq!(options.stats_every, None);
}

#[test]
fn what_faults_cost_is_read_and_a_deadline_that_is_asked_for_is_required() {
    let engine = from_file(
        "queues = 5\non-fault = 'accept'\ninspect-deadline = 0.25\npanics-max = 9\non-exit = 'drop'",
    )
    .unwrap()
    .engine;
    let deadline = Some(InspectDeadline { limit: Duration::from_millis(250), required: true });
    let expected = FaultConfig { on_fault: Fate::Accept, panics_max: 9, deadline };
    assert_eq!((engine.fault, engine.on_exit), (expected, Some(Fate::Drop)));
    let engine = from_file("queues = 5\ninspect-deadline = 0.0").unwrap().engine;
    assert_eq!((engine.fault.on_fault, engine.fault.deadline), (Fate::Drop, None));
}

#[test]
fn orphans_get_what_faults_get_unless_something_else_is_said() {
    for (text, expected) in [
        ("", Fate::Drop),
        ("on-fault = 'accept'", Fate::Accept),
        ("on-fault = 'accept'\non-orphan = 'drop'", Fate::Drop),
        ("on-orphan = 'accept'", Fate::Accept),
    ] {
        let options = from_file(&format!("queues = 5\n{text}")).unwrap();
        assert_eq!(options.on_orphan, expected, "{text}");
    }
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
        ("mode = 'nfq'", "repeat:MARK"),
        ("mode = 'repeat:0'", "set a bit"),
        ("queues = '0-3'\nmode = 'route:3'", "for ever"),
        ("bypass-after = 0\nbypass-mark = 1", "bypass-after 0"),
        ("bypass-after = 10", "--bypass-mark 0x1"),
        ("bypass-mark = 1", "--bypass-after 10"),
        ("bypass-by = 'ct'", "--bypass-after 10"),
        ("bypass-after = 1\nbypass-mark = 1\ncopy-range = 64", "74 or more"),
        ("placement = 'spare:'", "no list of CPUs"),
        ("placement = 'here'", "same, spare"),
        ("stats = 0", "stats 0 is out of range"),
        ("gso = 'yes'", "write wanted, required"),
        ("conntrack = 1", "`1` is no wish"),
        ("que = '0'", "unknown field `que`"),
        ("queues 0", "expected"),
    ] {
        let error = format!("{:#}", from_file(text).unwrap_err());
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn each_flag_has_one_notation_on_the_line_and_in_the_file() {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }
    for flag in QueueFlag::ALL {
        for (notation, wish) in [
            ("", FlagWish::Required),
            ("=true", FlagWish::Required),
            ("=required", FlagWish::Required),
            ("=wanted", FlagWish::Wanted),
            ("=off", FlagWish::Off),
            ("=false", FlagWish::Off),
        ] {
            let words = ["run", "--queues=0", &format!("--{flag}{notation}")].map(str::to_owned);
            let line = <Line as clap::Parser>::try_parse_from(words).unwrap().settings;
            let expected = |asked| if asked == flag { wish } else { FlagWish::Off };
            let wishes = RunOptions::from_settings(line).unwrap().engine.queue.flags;
            assert!(
                QueueFlag::ALL.iter().all(|f| wishes.of(*f) == expected(*f)),
                "--{flag}{notation}"
            );
            if let Some(value) = notation.strip_prefix('=') {
                let quoted = if value.len() < 6 && value != "off" {
                    value.to_owned()
                } else {
                    format!("'{value}'")
                };
                let options = from_file(&format!("queues = 0\n{flag} = {quoted}")).unwrap();
                assert_eq!(options.engine.queue.flags, wishes, "{flag} = {quoted}");
            }
        }
    }
}

#[test]
fn inspecting_threads_run_where_they_are_asked_to_or_it_is_said_why_not() {
    let options = from_file("queues = 1\ninspect-threads = 2\ninspect-cpus = 0").unwrap();
    assert_eq!(options.inspect_cpus.unwrap().to_string(), "0");
    for (settings, said) in [
        ("inspect-cpus = '0'", "add --inspect-threads"),
        ("inspect-threads = 1\ninspect-cpus = '0,1000'", "may not run on 1000 (allowed: "),
        ("inspect-threads = 1\ninspect-cpus = '1-0'", "1-0"),
    ] {
        let error = from_file(&format!("queues = 1\n{settings}")).unwrap_err();
        assert!(format!("{error:#}").contains(said), "{error:#}");
    }
}

#[test]
fn threads_ask_for_deferral_and_a_depth_has_a_default() {
    let options = from_file("queues = 1\ninspect-threads = 2").unwrap();
    assert_eq!(options.inspect_threads, 2);
    let deferral = options.engine.deferral.unwrap();
    assert!(deferral.outstanding_max >= 4 * options.engine.batch);
    let options = from_file("queues = 1\nqueue-maxlen = 1000\non-overload = 'drop'").unwrap();
    assert_eq!(options.engine.overload.unwrap().depth, 750);
    let plain = from_file("queues = 1").unwrap();
    assert_eq!(
        (plain.inspect_threads, plain.engine.deferral, plain.engine.overload),
        (0, None, None)
    );
}
