//! Cases and targets of a matrix, and their results.

use serde::Deserialize;

use crate::outcome::Outcome;
use crate::statistics::Spread;

/// A server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetSection {
    pub(super) name: String,
    pub(super) url: String,
    /// Its process, whose CPU time is measured.
    pub(super) pid: Option<u32>,
    /// Processes that are stopped while another target is measured.
    #[serde(default)]
    pub(super) pause: Vec<u32>,
    /// Conventions: `["--login", "guest"]`.
    #[serde(default)]
    pub(super) arguments: Vec<String>,
    /// Bound on repetitions, for a slow target.
    pub(super) repeat_max: Option<usize>,
}

/// A scenario with its arguments.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseSection {
    /// The name by which it is selected.
    pub(super) name: String,
    /// The title for people; the name by default.
    pub(super) title: Option<String>,
    /// `"fan-out --receivers 100"`
    pub(super) run: String,
    /// The targets of the case; all if empty.
    #[serde(default)]
    pub(super) targets: Vec<String>,
}

impl CaseSection {
    pub(super) fn title(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.name)
    }
}

/// The results of a case.
#[derive(Debug)]
pub(super) struct CaseResults {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) run: String,
    pub(super) targets: Vec<TargetResults>,
}

/// The results of a target in one case.
#[derive(Debug)]
pub(super) struct TargetResults {
    pub(super) name: String,
    /// Outcomes with their rounds.
    pub(super) outcomes: Vec<(usize, Outcome)>,
    pub(super) fault: Option<String>,
}

impl CaseResults {
    pub(super) fn new(case: &CaseSection, targets: &[&TargetSection]) -> Self {
        let targets = targets.iter().map(|target| TargetResults::new(&target.name));
        Self {
            name: case.name.clone(),
            title: case.title().into(),
            run: case.run.clone(),
            targets: targets.collect(),
        }
    }

    pub(super) fn target(&self, name: &str) -> Option<&TargetResults> {
        self.targets.iter().find(|target| target.name == name)
    }
}

impl TargetResults {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), outcomes: Vec::new(), fault: None }
    }

    pub(super) fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().map(|(_, outcome)| outcome)
    }

    pub(super) fn spread(&self, value: impl Fn(&Outcome) -> Option<f64>) -> Option<Spread> {
        Spread::of(&self.outcomes().filter_map(value).collect::<Vec<_>>())
    }
}
