//! A matrix of targets, cases and bars, as a file.

use clap::Parser;
use serde::Deserialize;

use super::bars::BarSection;
use super::cases::{CaseSection, TargetSection};
use crate::arguments::{Arguments, Command};

/// A matrix of cases and targets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Runs of each case against each target.
    #[serde(default = "repeat_default")]
    pub repeat: usize,
    /// Seconds after which no further repetition is begun; each case is run at least once.
    pub seconds_max: Option<f64>,
    /// A line for the report: machine, versions.
    #[serde(default)]
    pub(super) note: String,
    /// The name of the target that ratios are taken to.
    #[serde(default = "baseline_default")]
    pub(super) baseline: String,
    #[serde(rename = "target")]
    pub(super) targets: Vec<TargetSection>,
    #[serde(rename = "case")]
    pub(super) cases: Vec<CaseSection>,
    #[serde(rename = "bar", default)]
    pub(super) bars: Vec<BarSection>,
}

fn repeat_default() -> usize {
    3
}

fn baseline_default() -> String {
    "floor".into()
}

impl Matrix {
    /// Parses a matrix.
    ///
    /// # Errors
    /// The matrix is malformed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let matrix: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for case in &matrix.cases {
            for target in &matrix.targets {
                matrix.command(case, target).map_err(|text| format!("{}: {text}", case.name))?;
            }
            for name in &case.targets {
                if !matrix.targets.iter().any(|target| target.name == *name) {
                    return Err(format!("{}: no target {name}", case.name));
                }
            }
        }
        for bar in &matrix.bars {
            bar.check().map_err(|text| format!("{}: {text}", bar.name))?;
        }
        Ok(matrix)
    }

    /// Keeps only selected cases and targets, and the bars about them.
    ///
    /// # Errors
    /// No case or target is left.
    pub fn select(&mut self, cases: Option<&str>, targets: Option<&str>) -> Result<(), String> {
        let known: Vec<_> = self.cases.iter().map(|case| case.name.clone()).collect();
        self.cases.retain(|case| cases.is_none_or(|names| is_selected(names, &case.name)));
        if self.cases.is_empty() {
            return Err(format!("no case is selected; there are {}", known.join(", ")));
        }
        let known: Vec<_> = self.targets.iter().map(|target| target.name.clone()).collect();
        self.targets.retain(|target| targets.is_none_or(|names| is_selected(names, &target.name)));
        if self.targets.is_empty() {
            return Err(format!("no target is selected; there are {}", known.join(", ")));
        }
        self.bars.retain(|bar| {
            bar.is_about(
                |name| cases.is_none_or(|names| is_selected(names, name)),
                |name| targets.is_none_or(|names| is_selected(names, name)),
            )
        });
        Ok(())
    }

    pub(super) fn targets_of(&self, case: &CaseSection) -> Vec<&TargetSection> {
        let targets = self.targets.iter();
        targets.filter(|one| case.targets.is_empty() || case.targets.contains(&one.name)).collect()
    }

    pub(super) fn command(
        &self,
        case: &CaseSection,
        target: &TargetSection,
    ) -> Result<Command, String> {
        let mut words = vec!["com-broker-bench".to_owned()];
        words.extend(case.run.split_whitespace().map(str::to_owned));
        words.extend(target.arguments.iter().cloned());
        words.extend(["--quiet".into(), "--core".into(), "none".into()]);
        if let Some(pid) = target.pid {
            words.extend(["--server-pid".into(), pid.to_string()]);
        }
        words.push(target.url.clone());
        let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
        if arguments.command.common().is_none() {
            return Err(format!("{}: not a scenario", case.run));
        }
        Ok(arguments.command)
    }
}

/// Whether a name matches one of a list of globs with commas between them.
fn is_selected(names: &str, name: &str) -> bool {
    names.split(',').any(|glob| matches(glob.trim(), name))
}

fn matches(glob: &str, name: &str) -> bool {
    match glob.split_once('*') {
        None => glob == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len())
                .filter(|at| name.is_char_boundary(*at))
                .any(|at| matches(rest, &name[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
[[target]]
name = \"floor\"
url = \"floor://127.0.0.1:1\"
[[target]]
name = \"ours\"
url = \"stomp+tcp://127.0.0.1:2\"
[[case]]
name = \"fanout-10\"
run = \"fan-out --receivers 10\"
[[case]]
name = \"pairs-8\"
run = \"pairs\"
targets = [\"ours\"]
";

    #[test]
    fn cases_and_targets_are_selected_by_name() {
        for (names, name, selected) in [
            ("a,b", "b", true),
            ("a, b", "b", true),
            ("fanout-*", "fanout-10", true),
            ("*-10", "fanout-10", true),
            ("f*-1*", "fanout-10", true),
            ("fanout", "fanout-10", false),
            ("*", "anything", true),
        ] {
            assert_eq!(is_selected(names, name), selected, "{names} {name}");
        }
        let mut matrix = Matrix::parse(TEXT).unwrap();
        matrix.select(Some("fanout-*"), Some("floor")).unwrap();
        assert_eq!((matrix.cases.len(), matrix.targets.len()), (1, 1));
        let error = matrix.select(Some("pears"), None).unwrap_err();
        assert!(error.contains("there are fanout-10"), "{error}");
    }

    #[test]
    fn a_malformed_matrix_is_refused() {
        assert!(Matrix::parse(TEXT).is_ok());
        for (wrong, right) in [
            ("targets = [\"theirs\"]", "targets = [\"ours\"]"),
            ("run = \"pears\"", "run = \"pairs\""),
            ("run = \"floor\"", "run = \"pairs\""),
        ] {
            assert!(Matrix::parse(&TEXT.replace(right, wrong)).is_err(), "{wrong}");
        }
    }
}
