//! Reading a file, and the files that it includes, and theirs.
//!
//! Invariant: rules stand in the order of reading: those of included files, in the order of the list (of a wildcard:
//! of their names), before those of the file that includes them. No file is read twice, so every include ends.
//!
//! It deliberately opens nothing itself: what a path leads to is `files.rs`'s business.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::error::{RulesFileError, Wrong};
use super::files::Files;
use super::rule::Rule;
use super::schema::{FileText, List, Scalar};
use super::{Settings, key_of_the_first_file, settings};

pub(super) fn read(
    path: &Path,
    files: &impl Files,
) -> Result<(Vec<Rule>, Settings, Vec<PathBuf>), RulesFileError> {
    let mut reader = Reader::new(files);
    let (text, mut file) = reader.open(path, None)?;
    reader.settings =
        settings(&mut file).map_err(|wrong| RulesFileError::at(path, &text, wrong))?;
    reader.take(path, &text, file)?;
    Ok((reader.rules, reader.settings, reader.read))
}

struct Reader<'f, F> {
    files: &'f F,
    settings: Settings,
    rules: Vec<Rule>,
    names: HashMap<String, PathBuf>,
    ids: HashMap<u32, String>,
    /// As they were named, in the order of reading.
    read: Vec<PathBuf>,
    /// The same without symbolic links.
    known: Vec<PathBuf>,
    /// Those whose includes are being read: indexes of `read`.
    open: Vec<usize>,
}

/// Who asked for a file: the text that does, and the place in it.
struct Asker<'a> {
    path: &'a Path,
    text: &'a str,
    span: std::ops::Range<usize>,
}

impl Asker<'_> {
    fn error(&self, what: String) -> RulesFileError {
        RulesFileError::at(self.path, self.text, Wrong::at(self.span.clone(), what))
    }
}

impl<'f, F: Files> Reader<'f, F> {
    fn new(files: &'f F) -> Self {
        Self {
            files,
            settings: Settings::default(),
            rules: Vec::new(),
            names: HashMap::new(),
            ids: HashMap::new(),
            read: Vec::new(),
            known: Vec::new(),
            open: Vec::new(),
        }
    }

    /// Reads one file's text into its keys.
    fn open(
        &mut self,
        path: &Path,
        asker: Option<&Asker<'_>>,
    ) -> Result<(String, FileText), RulesFileError> {
        let refused = |what: String| match asker {
            Some(asker) => asker.error(format!("{}: {what}", path.display())),
            None => RulesFileError::of_file(path, what),
        };
        let real = self.files.real(path).map_err(refused)?;
        self.refuse_a_second_time(&real).map_err(refused)?;
        let text = self.files.text(&real).map_err(refused)?;
        let file = toml::from_str(&text)
            .map_err(|error| RulesFileError::at(path, &text, Wrong::from(error)))?;
        self.open.push(self.read.len());
        self.read.push(path.to_owned());
        self.known.push(real);
        Ok((text, file))
    }

    fn refuse_a_second_time(&self, real: &Path) -> Result<(), String> {
        let Some(index) = self.known.iter().position(|known| known == real) else { return Ok(()) };
        let Some(from) = self.open.iter().position(|open| *open == index) else {
            return Err("this file is included already: take one of the two out".to_owned());
        };
        let mut chain: Vec<_> = self.open[from..].iter().map(|open| self.name(*open)).collect();
        chain.push(self.name(index));
        Err(format!("the include has no end: {}", chain.join(" includes ")))
    }

    fn name(&self, index: usize) -> String {
        self.read[index].display().to_string()
    }

    /// Takes a file's includes, then its own rules.
    fn take(&mut self, path: &Path, text: &str, mut file: FileText) -> Result<(), RulesFileError> {
        for (span, name) in file.include.take().map(List::items).unwrap_or_default() {
            let asker = Asker { path, text, span };
            for included in self.named_by(path, &name).map_err(|what| asker.error(what))? {
                if self.open.len() >= DEPTH_MAX {
                    let what = format!(
                        "includes go {DEPTH_MAX} files deep at most: include it from a file further up"
                    );
                    return Err(asker.error(what));
                }
                let (text, file) = self.open(&included, Some(&asker))?;
                if let Some(wrong) = key_of_the_first_file(&file) {
                    return Err(RulesFileError::at(&included, &text, wrong));
                }
                self.take(&included, &text, file)?;
            }
        }
        self.open.pop();
        for rule in std::mem::take(&mut file.rule) {
            let (name, id) = (rule.name.clone(), rule.id.as_ref().map(Spanned::span));
            let rule = Rule::read(rule, &self.settings)
                .and_then(|rule| self.note(path, rule, &name, id))
                .map_err(|wrong| RulesFileError::at(path, text, wrong))?;
            self.rules.push(rule);
        }
        Ok(())
    }

    /// The files that an include names, seen from the file that it stands in.
    fn named_by(&self, from: &Path, value: &Scalar) -> Result<Vec<PathBuf>, String> {
        let Scalar::Text(name) = value else {
            return Err(
                "an include is a text: the path of a rules file, such as \"rules.d/*.toml\""
                    .to_owned(),
            );
        };
        let folder = from.parent().unwrap_or(Path::new(""));
        if !name.contains(['*', '?']) {
            return Ok(vec![folder.join(name)]);
        }
        // What is special in the folder's own name is meant as it stands.
        let folder = glob::Pattern::escape(&folder.to_string_lossy());
        let pattern = Path::new(&folder).join(name);
        self.files.matching(name, &pattern.to_string_lossy())
    }

    /// Holds that names and ids tell rules apart.
    fn note(
        &mut self,
        path: &Path,
        rule: Rule,
        name: &Spanned<String>,
        id: Option<std::ops::Range<usize>>,
    ) -> Result<Rule, Wrong> {
        if let Some(first) = self.names.insert(rule.name.clone(), path.to_owned()) {
            let what = format!(
                "a rule named `{}` is in {} already: names tell rules apart",
                rule.name,
                first.display()
            );
            return Err(Wrong::at(name.span(), what));
        }
        if let (Some(number), Some(span)) = (rule.id, id)
            && let Some(first) = self.ids.insert(number, rule.name.clone())
        {
            return Err(Wrong::at(
                span,
                format!("the id {number} is that of the rule `{first}` already"),
            ));
        }
        Ok(rule)
    }
}

/// Files that include each other in a row.
const DEPTH_MAX: usize = 8;
