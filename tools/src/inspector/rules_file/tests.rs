//! Goal: what the page on rules files says is read as it says, and whatever is wrong is refused with its place and
//! what was expected. Method: files in a folder of their own.

use std::fs;

use fanq::nfq::Hook;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A folder with `main.toml` and other files.
struct Files(TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    fn load(&self) -> Result<RulesFile, RulesFileError> {
        RulesFile::load(&self.0.path().join("main.toml"))
    }

    /// The error, without the folder's name.
    fn error(&self) -> String {
        let folder = format!("{}/", self.0.path().display());
        self.load().unwrap_err().to_string().replace(&folder, "")
    }
}

fn load(text: &str) -> Result<RulesFile, RulesFileError> {
    Files::new(&[("main.toml", text)]).load()
}

#[test]
fn every_key_is_read() {
    let file = load(
        r#"
        default = "drop"
        default-log = true
        reject-mark = "0x10/0x30"
        bypass-mark = "0x20/0x30"
        flow-table = 1024
        limit-table = 2048

        [[rule]]
        name = "all"
        id = 7
        severity = 1
        category = "Web"
        message = "all of it"
        log = false
        protocol = ["tcp", "udp", 132]
        source = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"]
        destination = "0.0.0.0/0"
        source-port = "1024-65535"
        destination-port = [80, "443", "8000-8080"]
        in-interface = "eth0"
        out-interface = ["eth1", "eth2"]
        direction = ["input", "forward"]
        pattern = ["GET |2f|x|0d0a|", { text = "Host", ignore-case = true }]
        limit = { per = "source", count = 5, seconds = 0.5, burst = 9 }
        action = "mark"
        mark = 5

        [[rule]]
        name = "least"
        action = "reject"
        "#,
    )
    .unwrap();
    let settings = &file.settings;
    assert!(settings.default_drops && settings.default_log);
    assert_eq!((settings.flow_table, settings.limit_table), (1024, 2048));
    assert_eq!(settings.reject_mark, Some("0x10/0x30".parse().unwrap()));
    let all = &file.rules[0];
    assert_eq!((all.name.as_str(), all.id, all.severity, all.log), ("all", Some(7), 1, false));
    assert_eq!(all.action, Action::Mark("5".parse().unwrap()));
    let conditions = &all.conditions;
    assert_eq!(conditions.protocols, [6, 17, 132]);
    assert_eq!(
        conditions.sources.iter().map(|prefix| prefix.length).collect::<Vec<_>>(),
        [8, 32, 32]
    );
    assert_eq!(conditions.destination_ports[2], PortRange { first: 8000, last: 8080 });
    assert_eq!(conditions.source_ports, [PortRange { first: 1024, last: 65535 }]);
    assert_eq!(conditions.hooks, [Hook::Input, Hook::Forward]);
    assert_eq!(conditions.out_interfaces, ["eth1", "eth2"]);
    assert_eq!(conditions.patterns[0].bytes, b"GET /x\r\n");
    assert!(conditions.patterns[1].ignore_case && !conditions.patterns[0].ignore_case);
    let limit = Limit { per: LimitScope::Source, count: 5, seconds: 0.5, burst: 9 };
    assert_eq!(all.limit, Some(limit));
    let least = &file.rules[1];
    assert_eq!((least.action, least.log, least.severity), (Action::Reject, true, 3));
    assert_eq!(least.conditions, Conditions::default());
}

#[test]
fn an_empty_file_accepts_all() {
    let file = load("").unwrap();
    assert!(file.rules.is_empty() && file.settings == Settings::default());
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_what_was_expected() {
    let rule = |keys: &str| format!("[[rule]]\nname = 'r'\naction = 'drop'\n{keys}");
    for (text, place, part) in [
        ("defaults = 'drop'".to_owned(), "1:1", "unknown field `defaults`, expected one of"),
        ("default = 'reject'".to_owned(), "1:11", "write \"accept\" or \"drop\""),
        ("default = 5".to_owned(), "1:11", "expected a string"),
        ("default".to_owned(), "1:8", "expected"),
        ("\n\nflow-table = 1".to_owned(), "3:14", "out of range: 64 to"),
        ("reject-mark = 0".to_owned(), "1:15", "set a bit"),
        ("reject-mark = '1'\nbypass-mark = '1/3'".to_owned(), "2:15", "another bit"),
        ("[[rule]]\naction = 'drop'".to_owned(), "1:1", "missing field `name`"),
        ("[[rule]]\nname = 'r'".to_owned(), "1:1", "missing field `action`"),
        ("[[rule]]\nname = ' '\naction = 'drop'".to_owned(), "2:8", "name is empty"),
        ("[[rule]]\nname = 'r'\naction = 'deny'".to_owned(), "3:10", "accept, drop, reject"),
        ("[[rule]]\nname = 'r'\naction = 'reject'".to_owned(), "3:10", "needs `reject-mark`"),
        ("[[rule]]\nname = 'r'\naction = 'bypass'".to_owned(), "3:10", "--bypass-mark"),
        ("[[rule]]\nname = 'r'\naction = 'mark'".to_owned(), "3:10", "needs the key `mark`"),
        ("[[rule]]\nname = 'r'\naction = 'log'\nlog = false".to_owned(), "4:7", "does nothing"),
        (rule("mark = 1"), "4:8", "only a rule with the action \"mark\""),
        (rule("src = '10.0.0.0/8'"), "4:1", "unknown field `src`, expected one of"),
        (rule("protocol = 'http'"), "4:12", "tcp, udp, icmp, icmpv6, sctp or a number"),
        (rule("protocol = 256"), "4:12", "256 is no protocol"),
        (rule("protocol = ['tcp', 'icmp']\nsource-port = 5"), "4:12", "protocol 1 has no ports"),
        (rule("source = ['10.0.0.0/8', '10.0.0.1/8']"), "4:25", "write 10.0.0.0/8"),
        (rule("source = '10.0.0.0/33'"), "4:10", "this address has 32 bits"),
        (rule("source = '10.0.0.0/+8'"), "4:10", "write one like 192.0.2.1"),
        (rule("destination = 'example.org'"), "4:15", "no address or prefix"),
        (rule("destination = '2001:db8::1/32'"), "4:15", "write 2001:db8::/32"),
        (rule("destination = []"), "4:15", "an empty list"),
        (rule("destination-port = 65536"), "4:20", "a number from 0 to 65535"),
        (rule("destination-port = '9-1'"), "4:20", "write 1-9"),
        (rule("destination-port = '1-2-3'"), "4:20", "no port or range"),
        (rule("destination-port = true"), "4:20", "expected a text, a number, or a list"),
        (rule("in-interface = 'a/b'"), "4:16", "1 to 15 bytes"),
        (rule("direction = 'in'"), "4:13", "prerouting, input, forward"),
        (rule("pattern = ''"), "4:11", "the pattern is empty"),
        (rule("pattern = 'a|0g|'"), "4:11", "`|0g|`"),
        (rule("pattern = ['ok', '|0d 0|']"), "4:18", "pairs of hexadecimal digits"),
        (rule("pattern = 'a|b'"), "4:11", "no partner"),
        (rule("pattern = { text = 'a', nocase = true }"), "4:25", "unknown field `nocase`"),
        (rule("limit = { per = 'host', count = 1, seconds = 1 }"), "4:17", "source, destination"),
        (
            rule("limit = { per = 'flow', count = 0, seconds = 1 }"),
            "4:33",
            "count 0 is out of range",
        ),
        (rule("limit = { per = 'flow', count = 1, seconds = 0 }"), "4:46", "seconds 0 is out"),
        (rule("limit = { per = 'flow', count = 1, seconds = nan }"), "4:46", "out of range"),
        (rule("limit = { per = 'flow', count = 1 }"), "4:9", "missing field `seconds`"),
        (rule("severity = 0"), "4:12", "severity 0 is out of range: 1 to 255"),
        (rule("[[rule]]\nname = 'r'\naction = 'drop'"), "5:8", "a rule named `r` is in"),
        (
            rule("id = 1\n[[rule]]\nname = 's'\naction = 'drop'\nid = 1"),
            "8:6",
            "that of the rule `r`",
        ),
    ] {
        let error = Files::new(&[("main.toml", &text)]).error();
        assert!(error.starts_with(&format!("main.toml:{place}: ")), "{text}\ngave {error}");
        assert!(error.contains(part) && !error.contains('\n'), "{text}\ngave {error}");
    }
}

#[test]
fn included_rules_stand_before_those_of_their_file() {
    let rule = |name: &str| format!("[[rule]]\nname = '{name}'\naction = 'drop'\n");
    let files = Files::new(&[
        ("main.toml", &format!("include = ['one.toml', 'd[1]/*.toml']\n{}", rule("main"))),
        ("one.toml", &format!("include = 'd[1]/deep/x.toml'\n{}", rule("one"))),
        ("d[1]/b.toml", &rule("b")),
        ("d[1]/a.toml", &rule("a")),
        ("d[1]/other.txt", "not toml"),
        ("d[1]/deep/x.toml", &rule("x")),
    ]);
    // Brackets in a wildcard mean one of their characters, so the folder is written as a wildcard would find it.
    let text = format!("include = ['one.toml', 'd[[]1]/*.toml']\n{}", rule("main"));
    fs::write(files.0.path().join("main.toml"), text).unwrap();
    let file = files.load().unwrap();
    let names: Vec<_> = file.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["x", "one", "a", "b", "main"]);
    assert_eq!(file.files.len(), 5);
}

#[test]
fn an_include_without_end_and_other_bad_ones_are_refused_where_they_stand() {
    let chain = |length: usize| {
        let name = |n: usize| if n == 0 { "main.toml".to_owned() } else { format!("{n}.toml") };
        let text = |n: usize| {
            if n + 1 < length { format!("include = '{}'", name(n + 1)) } else { String::new() }
        };
        (0..length).map(|n| (name(n), text(n))).collect::<Vec<_>>()
    };
    let deep = |length| {
        let files = chain(length);
        let files: Vec<_> =
            files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        Files::new(&files)
    };
    assert!(deep(8).load().is_ok());
    for (files, place, part) in [
        (deep(9), "7.toml:1:11", "8 files deep at most"),
        (Files::new(&[("main.toml", "include = 'main.toml'")]), "main.toml:1:11", "no end: "),
        (
            Files::new(&[
                ("main.toml", "include = ['a.toml']"),
                ("a.toml", "\ninclude = './main.toml'"),
            ]),
            "a.toml:2:11",
            "main.toml includes a.toml includes main.toml",
        ),
        (
            Files::new(&[("main.toml", "include = ['a', 'a']"), ("a", "")]),
            "main.toml:1:17",
            "included already",
        ),
        (
            Files::new(&[("main.toml", "include = 'gone'")]),
            "main.toml:1:11",
            "gone: the rules file cannot be read",
        ),
        (Files::new(&[("main.toml", "include = 5")]), "main.toml:1:11", "an include is a text"),
        (Files::new(&[("main.toml", "include = '***'")]), "main.toml:1:11", "no wildcard"),
        (
            Files::new(&[("main.toml", "include = 'd'"), ("d/x", "")]),
            "main.toml:1:11",
            "no regular file",
        ),
        (
            Files::new(&[("main.toml", "include = 'a'"), ("a", "default = 'drop'")]),
            "a:1:11",
            "write it in the file that includes",
        ),
        (
            Files::new(&[("main.toml", "include = 'a'"), ("a", "x = 1")]),
            "a:1:1",
            "unknown field `x`",
        ),
    ] {
        let error = files.error();
        assert!(error.starts_with(&format!("{place}: ")) && error.contains(part), "{error}");
    }
    assert!(
        RulesFile::load("/nonexistent.toml".as_ref())
            .unwrap_err()
            .to_string()
            .contains("/nonexistent.toml: ")
    );
    assert!(
        RulesFile::load("/dev/zero".as_ref()).unwrap_err().to_string().contains("no regular file")
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(
        key in "(source|pattern|destination-port|protocol|mark|limit|id)",
        value in "\\PC{0,20}",
    ) {
        let quoted = value.replace(['\'', '\n'], "");
        let _ = load(&format!("[[rule]]\nname = 'r'\naction = 'drop'\n{key} = '{quoted}'"));
        let _ = load(&format!("[[rule]]\nname = 'r'\naction = 'drop'\n{key} = {value}"));
    }
}
