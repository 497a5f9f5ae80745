//! The keys of a rules file, as they stand in the text: each value with its place, nothing checked but its type.
//!
//! Invariant: a key that is not listed here is an error. What a value may be is values.rs's business.

use std::fmt;
use std::ops::Range;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use toml::Spanned;

use super::error::Wrong;

/// A whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct FileText {
    pub(super) include: Option<Spanned<List>>,
    pub(super) default: Option<Spanned<String>>,
    pub(super) default_log: Option<Spanned<bool>>,
    pub(super) reject_mark: Option<Spanned<Scalar>>,
    pub(super) bypass_mark: Option<Spanned<Scalar>>,
    pub(super) flow_table: Option<Spanned<i64>>,
    pub(super) limit_table: Option<Spanned<i64>>,
    pub(super) rule: Vec<RuleText>,
}

/// One `[[rule]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RuleText {
    pub(super) name: Spanned<String>,
    pub(super) action: Spanned<String>,
    pub(super) id: Option<Spanned<i64>>,
    pub(super) severity: Option<Spanned<i64>>,
    pub(super) category: Option<String>,
    pub(super) message: Option<String>,
    pub(super) log: Option<Spanned<bool>>,
    pub(super) mark: Option<Spanned<Scalar>>,
    pub(super) protocol: Option<Spanned<List>>,
    pub(super) source: Option<Spanned<List>>,
    pub(super) destination: Option<Spanned<List>>,
    pub(super) source_port: Option<Spanned<List>>,
    pub(super) destination_port: Option<Spanned<List>>,
    pub(super) in_interface: Option<Spanned<List>>,
    pub(super) out_interface: Option<Spanned<List>>,
    pub(super) direction: Option<Spanned<List>>,
    pub(super) pattern: Option<Spanned<List>>,
    pub(super) limit: Option<LimitText>,
}

/// `limit = { per = "source", count = 100, seconds = 1 }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LimitText {
    pub(super) per: Spanned<String>,
    pub(super) count: Spanned<i64>,
    pub(super) seconds: Spanned<f64>,
    pub(super) burst: Option<Spanned<i64>>,
}

/// A single value with a notation of its own.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Integer(i64),
    Text(String),
    Pattern(PatternText),
}

/// `{ text = "union select", ignore-case = true }`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PatternText {
    pub(super) text: String,
    #[serde(default)]
    pub(super) ignore_case: bool,
}

/// One value, or a list of them.
#[derive(Debug)]
pub(super) struct List(Vec<(Option<Range<usize>>, Scalar)>);

impl List {
    /// Reads each value; what is wrong with one stands where it stands.
    pub(super) fn read<T>(
        list: Option<Spanned<Self>>,
        read: impl Fn(&Scalar) -> Result<T, String>,
    ) -> Result<Vec<T>, Wrong> {
        let Some(list) = list else { return Ok(Vec::new()) };
        let whole = list.span();
        let values = list.into_inner().0;
        if values.is_empty() {
            return Err(Wrong::at(whole, "an empty list: write a value, or leave the key out"));
        }
        let each = values.into_iter().map(|(span, value)| {
            read(&value).map_err(|what| Wrong::at(span.unwrap_or_else(|| whole.clone()), what))
        });
        each.collect()
    }

    /// The values with their places.
    pub(super) fn items(list: Spanned<Self>) -> Vec<(Range<usize>, Scalar)> {
        let whole = list.span();
        let values = list.into_inner().0.into_iter();
        values.map(|(span, value)| (span.unwrap_or_else(|| whole.clone()), value)).collect()
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Integer(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Scalar, A::Error> {
        PatternText::deserialize(MapAccessDeserializer::new(map)).map(Scalar::Pattern)
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = List;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, or a list of these")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<List, E> {
        Ok(List(vec![(None, Scalar::Integer(number))]))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<List, E> {
        Ok(List(vec![(None, Scalar::Text(text.to_owned()))]))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<List, A::Error> {
        Ok(List(vec![(None, ScalarVisitor.visit_map(map)?)]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element::<Spanned<Scalar>>()? {
            values.push((Some(value.span()), value.into_inner()));
        }
        Ok(List(values))
    }
}
