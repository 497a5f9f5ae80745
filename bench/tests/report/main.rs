//! Goal: the report is a page that a browser shows right. Method: the made-up result is drawn by the program, and
//! Chromium, headless, lays it out in frames as wide as a desk's, a tablet's and two phones' screens, light and dark:
//! every chart has a size, no text leaves its chart or lies on another, and the page is never wider than the screen.
//!
//! Without a Chromium on the PATH it prints SKIPPED, or fails if CI is set. With `FANQ_REPORT_DIR=FOLDER` the page,
//! its charts and screenshots stay there, for the eye.

#[expect(dead_code, unused_imports, reason = "the program uses all of it, this test but the types")]
#[path = "../../src/result/mod.rs"]
mod result;
#[path = "../../src/report/sample.rs"]
mod sample;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const CHARTS: [&str; 8] =
    ["delay", "loss", "goodput", "cpu", "rates", "queues", "tcp", "connections"];
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// The first screen of a desk.
const SCREEN_HEIGHT: i64 = 900;

#[test]
fn a_browser_shows_the_page_and_its_charts() {
    let Some(browser) = browser() else {
        skip("no chromium on the PATH; Debian has it as the package chromium");
        return;
    };
    let folder = Folder::new();
    let page = folder.0.join("made-up.html");
    draw(&folder.0);
    let harness = folder.0.join("harness.html");
    std::fs::write(&harness, harness_text(&page)).expect("the folder can be written");

    let light = seen(browser, &folder.0, &harness, &[]);
    let dark = seen(browser, &folder.0, &harness, &[DARK]);
    for seen in [&light, &dark] {
        check(seen);
    }
    let paper = |seen: &Value| seen["pages"][0]["paper"].clone();
    assert_eq!(paper(&light), "rgb(255, 255, 255)");
    assert_ne!(paper(&dark), paper(&light), "a screen that asks for dark gets it");
    if kept().is_some() {
        for (name, flags) in [("light", &[][..]), ("dark", &[DARK])] {
            picture(browser, &folder.0, &page, &format!("desk-{name}"), "1280,5600", flags);
        }
    }
}

const DARK: &str = "--blink-settings=preferredColorScheme=0";

/// The program writes the page and each chart, all of them without a word on standard output.
fn draw(folder: &Path) {
    let result = folder.join("made-up.json");
    sample::document().write(&result).expect("the folder can be written");
    let report = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_fanq-bench"))
            .arg("report")
            .arg(&result)
            .args(more)
            .output()
            .expect("the program starts");
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    };
    report(&[]);
    for chart in CHARTS {
        report(&["--chart", chart]);
    }
}

fn harness_text(page: &Path) -> String {
    let page = std::fs::read_to_string(page).expect("the page was written");
    assert!(!page.contains("</script"), "the page holds no script");
    let images = CHARTS.map(|chart| format!(r#"<img alt="{chart}" src="made-up-{chart}.svg">"#));
    include_str!("harness.html").replace("IMAGES", &images.concat()).replace("PAGE", &page)
}

/// What the harness wrote.
fn seen(browser: &str, folder: &Path, page: &Path, flags: &[&str]) -> Value {
    let dom = chromium(browser, folder, page, &[flags, &["--dump-dom"]].concat());
    let text = String::from_utf8_lossy(&dom.stdout);
    let json = text
        .split_once(r#"<pre id="seen">"#)
        .and_then(|(_, rest)| rest.split_once("</pre>"))
        .map(|(json, _)| json.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
        .unwrap_or_default();
    serde_json::from_str(&json).unwrap_or_else(|error| {
        panic!("{error}: {json:?}; {}", String::from_utf8_lossy(&dom.stderr))
    })
}

fn check(seen: &Value) {
    let pages = seen["pages"].as_array().expect("a list of pages");
    assert_eq!(pages.len(), 4);
    for page in pages {
        let width = &page["width"];
        assert_eq!(page["wider_by"], 0, "at {width} the page scrolls sideways");
        let figures = page["figures"].as_array().expect("a list of figures");
        assert_eq!(figures.len(), CHARTS.len(), "at {width}");
        for (figure, name) in figures.iter().zip(CHARTS) {
            assert_eq!(figure["id"], format!("chart-{name}"));
            let sizes = figure["sizes"].as_array().expect("a list of sizes");
            assert_eq!(sizes.len(), 1, "one drawing of {name} is shown at {width}");
            let (w, h) = (sizes[0][0].as_i64(), sizes[0][1].as_i64());
            assert!(w > Some(250) && h > Some(100), "{name} at {width}: {w:?} x {h:?}");
            assert_eq!(figure["outside"], Value::Array(vec![]), "{name} at {width}");
            assert_eq!(figure["touching"], Value::Array(vec![]), "{name} at {width}");
        }
    }
    let bottom = pages[0]["summary_bottom"].as_i64();
    assert!(bottom < Some(SCREEN_HEIGHT), "the answer does not fit the first screen: {bottom:?}");
    for image in seen["alone"].as_array().expect("a list of images") {
        assert!(image[1].as_i64() > Some(800), "the browser does not show {image} standing alone");
    }
}

fn picture(browser: &str, folder: &Path, page: &Path, name: &str, size: &str, flags: &[&str]) {
    let shot = format!("--screenshot={}", folder.join(name).with_extension("png").display());
    let size = format!("--window-size={size}");
    chromium(browser, folder, page, &[flags, &[&shot, &size, "--hide-scrollbars"]].concat());
}

fn chromium(browser: &str, folder: &Path, page: &Path, flags: &[&str]) -> Output {
    let output = Command::new("timeout")
        .args(["--kill-after=5", "120", browser, "--headless=new", "--no-sandbox", "--disable-gpu"])
        .arg("--virtual-time-budget=10000")
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .args(flags)
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("timeout is there (coreutils)");
    assert!(output.status.success(), "{browser}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn browser() -> Option<&'static str> {
    let path = std::env::var_os("PATH")?;
    BROWSERS
        .into_iter()
        .find(|name| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// A folder that goes with the test, unless it was asked for.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let own = || std::env::temp_dir().join(format!("fanq-report-{}", std::process::id()));
        let path = kept().unwrap_or_else(own);
        std::fs::create_dir_all(&path).expect("the folder can be made");
        Self(path)
    }
}

fn kept() -> Option<PathBuf> {
    std::env::var_os("FANQ_REPORT_DIR").map(PathBuf::from)
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.join("profile"));
        if kept().is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// What cannot be tested here is said, and in CI it is a failure.
fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why} (CI is set, so this may not be skipped)");
    eprintln!("SKIPPED: {why}");
}
