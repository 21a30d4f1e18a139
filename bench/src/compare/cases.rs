//! Cases and targets, as a matrix has them, and what was measured of each.

use serde::Deserialize;

use crate::outcome::Outcome;
use crate::statistics::Spread;

/// A server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetSection {
    pub(super) name: String,
    pub(super) url: String,
    /// Its process, whose CPU time is looked at.
    pub(super) pid: Option<u32>,
    /// Processes that are stopped while another target is measured, so that none disturbs.
    #[serde(default)]
    pub(super) pause: Vec<u32>,
    /// Conventions: `["--login", "guest"]`.
    #[serde(default)]
    pub(super) arguments: Vec<String>,
    /// Repetitions of a target that takes long, where they are to be fewer.
    pub(super) repeat_max: Option<usize>,
}

/// A scenario with its arguments.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseSection {
    /// What it is selected by.
    pub(super) name: String,
    /// What people read; the name, if there is none.
    pub(super) title: Option<String>,
    /// `"fan-out --receivers 100"`
    pub(super) run: String,
    /// The targets that it is for; all, if it names none.
    #[serde(default)]
    pub(super) targets: Vec<String>,
}

impl CaseSection {
    pub(super) fn title(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.name)
    }
}

/// What was measured of a case.
#[derive(Debug)]
pub(super) struct CaseResults {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) run: String,
    pub(super) targets: Vec<TargetResults>,
}

/// What was measured of a target, in one case.
#[derive(Debug)]
pub(super) struct TargetResults {
    pub(super) name: String,
    /// With the round that each belongs to.
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
