//! Goal: the subcommand writes what it says where it says, or says why not. Method: files in a folder of its own.

use super::*;
use crate::result::SCHEMA;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fanq-report-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn result(&self) -> PathBuf {
        let path = self.0.join("made-up.json");
        sample::document().write(&path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn args(result: &Path) -> ReportArgs {
    ReportArgs { result: result.to_owned(), out: None, chart: None }
}

fn failure(args: &ReportArgs) -> String {
    format!("{:#}", run(args).unwrap_err())
}

#[test]
fn a_page_or_a_chart_is_written_beside_the_result() {
    let folder = Folder::new("beside");
    let result = folder.result();
    run(&args(&result)).unwrap();
    run(&ReportArgs { chart: Some(ChartName::Cpu), ..args(&result) }).unwrap();
    let page = std::fs::read_to_string(folder.0.join("made-up.html")).unwrap();
    let chart = std::fs::read_to_string(folder.0.join("made-up-cpu.svg")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"));
    assert!(chart.starts_with("<svg ") && chart.ends_with("</svg>\n"));
    let mut names: Vec<_> =
        folder.0.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["made-up-cpu.svg", "made-up.html", "made-up.json"], "nothing else is left");
}

#[test]
fn bad_input_is_named() {
    let folder = Folder::new("bad");
    let path = folder.0.join("result.json");
    let with = |text: &str| {
        std::fs::write(&path, text).unwrap();
        failure(&args(&path))
    };
    assert!(failure(&args(&folder.0.join("none.json"))).contains("none.json"));
    assert!(with("not JSON").contains("is not JSON"));
    assert!(with("{}").contains("names no schema"));
    assert!(with(r#"{"schema":"fanq.bench/9"}"#).contains("fanq.bench/9"));
    assert!(with(&format!(r#"{{"schema":"{SCHEMA}"}}"#)).contains("does not keep to"));
    assert_eq!(folder.0.read_dir().unwrap().count(), 1, "nothing is written");
}

#[test]
fn a_place_that_cannot_be_written_is_named_and_the_result_kept() {
    let folder = Folder::new("place");
    let result = folder.result();
    let to = |out: &Path| failure(&ReportArgs { out: Some(out.to_owned()), ..args(&result) });
    assert!(to(&folder.0.join("none/page.html")).contains("name another place"));
    assert!(to(&folder.0).contains("is a folder"));
    assert!(to(&result).contains("is the result itself"));
    assert!(Document::read(&result).is_ok());
}

#[test]
fn a_chart_without_data_names_those_with_data() {
    let folder = Folder::new("chart");
    let result = folder.result();
    let mut document = sample::document();
    document.findings.tcp.clear();
    document.write(&result).unwrap();
    let said = failure(&ReportArgs { chart: Some(ChartName::Tcp), ..args(&result) });
    assert!(said.contains("has data for: delay, loss, goodput, cpu, rates, queues"), "{said}");
    sample::empty().write(&result).unwrap();
    let said = failure(&ReportArgs { chart: Some(ChartName::Tcp), ..args(&result) });
    assert!(said.contains("has data for: none"), "{said}");
}

/// After a change: `fanq-bench schema >docs/bench-result.schema.json`.
#[test]
fn the_schema_in_docs_is_that_of_the_types() {
    let committed = include_str!("../../../docs/bench-result.schema.json");
    assert_eq!(
        committed,
        schema_text().unwrap(),
        "run: fanq-bench schema >docs/bench-result.schema.json"
    );
}
