//! OpenMetrics text, read by the letter of its specification as far as this program writes it.

use std::collections::BTreeMap;

/// What one scrape said.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) families: BTreeMap<String, Family>,
    /// By name and labels, as they stand there.
    pub(crate) samples: BTreeMap<String, f64>,
}

#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) unit: Option<String>,
    pub(crate) help: String,
    pub(crate) labels: Vec<(String, String)>,
}

impl Page {
    /// Reads a page, and fails where it breaks a rule.
    pub(crate) fn read(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("the end of a page");
        let mut page = Self::default();
        let mut current = String::new();
        for line in body.lines() {
            if let Some(said) = line.strip_prefix("# ") {
                let (word, rest) = said.split_once(' ').expect("a word");
                let (name, rest) = rest.split_once(' ').expect("a name");
                if word == "HELP" {
                    assert!(!page.families.contains_key(name), "{name} twice");
                    current = name.to_owned();
                }
                assert_eq!(name, current, "{line}");
                let family = page.families.entry(name.to_owned()).or_default();
                match word {
                    "HELP" => family.help = rest.to_owned(),
                    "TYPE" => family.kind = rest.to_owned(),
                    "UNIT" => family.unit = Some(rest.to_owned()),
                    _ => panic!("{line}"),
                }
            } else {
                page.sample(&current, line);
            }
        }
        page.families.iter().for_each(|(name, family)| check(name, family));
        page
    }

    fn sample(&mut self, family: &str, line: &str) {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let (bare, labels) = name.split_once('{').map_or((name, ""), |(bare, labels)| {
            (bare, labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}")))
        });
        let of = self.families.get_mut(family).unwrap_or_else(|| panic!("{line} belongs to nothing"));
        let suffix = bare.strip_prefix(family).unwrap_or_else(|| panic!("{line} is not of {family}"));
        let suffixes: &[&str] = match of.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            other => panic!("{family} is a {other}"),
        };
        assert!(suffixes.contains(&suffix), "{line}");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("quotes");
            of.labels.push((key.to_owned(), value.to_owned()));
        }
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(value >= 0.0 && value.is_finite(), "{line}");
        assert!(self.samples.insert(name.to_owned(), value).is_none(), "{line} twice");
    }

    /// One value.
    pub(crate) fn value(&self, name: &str) -> f64 {
        *self.samples.get(name).unwrap_or_else(|| panic!("no {name}"))
    }

    /// How much some values have grown since another page; those that have not are left out.
    pub(crate) fn growth<'a>(&self, before: &Self, names: &[&'a str]) -> Vec<(&'a str, f64)> {
        let grown = |name: &&'a str| self.value(name) - before.samples.get(*name).copied().unwrap_or(0.0);
        names.iter().map(|name| (*name, grown(name))).filter(|(_, grown)| *grown != 0.0).collect()
    }
}

fn check(name: &str, family: &Family) {
    let Family { kind, unit, help, labels } = family;
    assert!(!kind.is_empty() && help.ends_with('.'), "{name}: {family:?}");
    assert!(name.starts_with("llamesh_") || name.starts_with("process_"), "{name}");
    assert!(name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()), "{name}");
    if let Some(unit) = unit {
        assert!(name.ends_with(&format!("_{unit}")), "{name} is in {unit}");
    }
    assert!(kind != "histogram" || unit.as_deref() == Some("seconds"), "{name}");
    assert!(!name.ends_with("_total"), "{name} has its suffix by itself");
    let own = [
        "direction",
        "door",
        "end",
        "at",
        "kept",
        "kind",
        "outcome",
        "state",
        "status",
        "transport",
        "verdict",
    ];
    for (key, value) in labels {
        match key.as_str() {
            "model" => assert!(name.starts_with("llamesh_engine_"), "{name}"),
            "version" => assert_eq!(name, "llamesh_build"),
            "le" => assert!(kind == "histogram" && (value == "+Inf" || value.parse::<f64>().is_ok())),
            key => {
                assert!(own.contains(&key), "{name} has a label {key}");
                let word = value.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
                assert!(word, "{name}: {value} is no word of ours");
            }
        }
    }
}
