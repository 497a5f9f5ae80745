//! The inspector of `fanq run --policy rules.toml`: decides packets by the rules of a file.

#![expect(dead_code, unused_imports, reason = "the compiled rules come next")]

pub(crate) mod rules_file;
