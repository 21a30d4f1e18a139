//! Bars: goals of targets, judged by the medians of one comparison.

use serde::Deserialize;
use serde_json::{Value, json};

use super::cases::{CaseResults, TargetResults};
use crate::outcome::Outcome;
use crate::statistics::{Spread, readable_ns, three_digits};

/// A bar, as a matrix has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BarSection {
    /// Its name for people.
    pub(super) name: String,
    #[serde(default)]
    case: String,
    #[serde(default)]
    target: String,
    /// `cpu`, `p50`, `p99`, `last p50`, `last p99`, `rate`, or a figure of the scenario.
    metric: String,
    /// A value that was measured elsewhere, without a case and a target.
    value: Option<f64>,
    /// The targets to the best of which the value is taken as a ratio. Without any, the bar is for the
    /// value itself or, with `against_case`, for the ratio to the same target's value there.
    #[serde(default)]
    against: Vec<String>,
    /// The case to whose value the ratio is taken, if it is another one.
    against_case: Option<String>,
    at_most: Option<f64>,
    at_least: Option<f64>,
}

/// The result for a bar.
#[derive(Clone, Debug)]
pub(super) struct BarResult {
    pub(super) name: String,
    case: String,
    target: String,
    metric: String,
    /// The target to whose value the ratio was taken.
    against: Option<String>,
    /// The median of the target, and the one that it is divided by.
    value: Option<f64>,
    other: Option<f64>,
    /// The spread over the rounds.
    rounds: Option<Spread>,
    bound: f64,
    is_ceiling: bool,
}

impl BarSection {
    pub(super) fn check(&self) -> Result<(), String> {
        match (self.at_most, self.at_least) {
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err("either at_most or at_least".into()),
        }
    }

    /// Whether the bar can be judged with these cases and targets.
    pub(super) fn is_about(
        &self,
        has_case: impl Fn(&str) -> bool,
        has_target: impl Fn(&str) -> bool,
    ) -> bool {
        self.value.is_some()
            || has_case(&self.case)
                && has_target(&self.target)
                && self.against_case.as_deref().is_none_or(has_case)
                && (self.against.is_empty() || self.against.iter().any(|name| has_target(name)))
    }

    /// Judges the results by the bar.
    pub(super) fn judge(&self, cases: &[CaseResults]) -> BarResult {
        let is_ceiling = self.at_most.is_some();
        let target = find(cases, &self.case, &self.target);
        let mut measured: Vec<_> = self
            .others(cases)
            .into_iter()
            .filter_map(|other| Some((self.median(other)?, other)))
            .collect();
        // The best one comes first, which is the smallest if the bar is a ceiling.
        measured.sort_by(|(a, _), (b, _)| if is_ceiling { a.total_cmp(b) } else { b.total_cmp(a) });
        let best = measured.first();
        let against = best.map(|(_, other)| match &self.against_case {
            Some(case) => format!("{} of {case}", other.name),
            None => other.name.clone(),
        });
        let median = self.value.or_else(|| self.median(target?));
        BarResult {
            name: self.name.clone(),
            case: self.case.clone(),
            target: self.target.clone(),
            metric: self.metric.clone(),
            against,
            // A ratio needs both values.
            value: median.filter(|_| self.is_absolute() || best.is_some()),
            other: best.map(|(other, _)| *other),
            rounds: target.and_then(|one| self.rounds(one, best.map(|(_, other)| *other))),
            bound: self.at_most.or(self.at_least).unwrap_or_default(),
            is_ceiling,
        }
    }

    fn is_absolute(&self) -> bool {
        self.against.is_empty() && self.against_case.is_none()
    }

    fn others<'a>(&self, cases: &'a [CaseResults]) -> Vec<&'a TargetResults> {
        if self.is_absolute() {
            return Vec::new();
        }
        let case = self.against_case.as_ref().unwrap_or(&self.case);
        let own = [self.target.clone()];
        let names = if self.against.is_empty() { &own[..] } else { &self.against };
        names.iter().filter_map(|name| find(cases, case, name)).collect()
    }

    fn median(&self, target: &TargetResults) -> Option<f64> {
        let values: Vec<_> =
            target.outcomes.iter().filter_map(|(_, outcome)| self.value(outcome)).collect();
        Some(Spread::of(&values)?.median)
    }

    /// The ratio of each round, or the value if the bar is not a ratio.
    fn rounds(&self, target: &TargetResults, other: Option<&TargetResults>) -> Option<Spread> {
        let values = target.outcomes.iter().filter_map(|(round, outcome)| {
            let value = self.value(outcome)?;
            let Some(other) = other else { return Some(value) };
            let (_, same) = other.outcomes.iter().find(|(number, _)| number == round)?;
            Some(value / self.value(same).filter(|other| *other > 0.0)?)
        });
        Spread::of(&values.collect::<Vec<_>>())
    }

    fn value(&self, outcome: &Outcome) -> Option<f64> {
        let time = |ns: Option<u64>| ns.map(|ns| ns as f64);
        match self.metric.as_str() {
            "cpu" => outcome.cpu_per_delivery_ns(),
            "p50" => time(outcome.quantile_ns(0.5)),
            "p99" => time(outcome.quantile_ns(0.99)),
            "last p50" => time(outcome.quantile_of_ns("last delivery", 0.5)),
            "last p99" => time(outcome.quantile_of_ns("last delivery", 0.99)),
            "rate" => Some(outcome.rate()),
            figure => outcome.figure(figure),
        }
    }
}

fn find<'a>(cases: &'a [CaseResults], case: &str, target: &str) -> Option<&'a TargetResults> {
    cases.iter().find(|one| one.name == case)?.target(target)
}

impl BarResult {
    /// The ratio, or the value if the bar is not a ratio.
    fn found(&self) -> Option<f64> {
        match self.other {
            Some(other) if other > 0.0 => Some(self.value? / other),
            Some(_) => None,
            None => self.value,
        }
    }

    /// Whether the bar is met; `None` if something was not measured.
    pub(super) fn is_met(&self) -> Option<bool> {
        let found = self.found()?;
        Some(if self.is_ceiling { found <= self.bound } else { found >= self.bound })
    }

    pub(super) fn verdict(&self) -> &'static str {
        match self.is_met() {
            Some(true) => "met",
            Some(false) => "missed",
            None => "not measured",
        }
    }

    pub(super) const HEADING: [&'static str; 6] =
        ["bar", "measured", "held against", "ratio", "of the rounds", "wanted"];

    pub(super) fn row(&self) -> Vec<String> {
        let none = || "–".to_owned();
        let other = self.against.as_ref().zip(self.other);
        let ratio = self.found().filter(|_| self.other.is_some());
        let rounds = self.rounds.filter(|rounds| rounds.min < rounds.max);
        let rounds = rounds.map(|rounds| match self.other {
            Some(_) => format!("{:.2} to {:.2}", rounds.min, rounds.max),
            None => format!("{} to {}", self.readable(rounds.min), self.readable(rounds.max)),
        });
        let sign = if self.is_ceiling { '≤' } else { '≥' };
        let bound = match &self.other {
            None if self.value.is_some() => self.readable(self.bound),
            _ => format!("{:.2}", self.bound),
        };
        vec![
            self.name.clone(),
            self.value.map_or_else(none, |value| self.readable(value)),
            other.map_or_else(none, |(name, other)| format!("{} ({name})", self.readable(other))),
            ratio.map_or_else(none, |ratio| format!("{ratio:.2}")),
            rounds.unwrap_or_else(none),
            format!("{sign} {bound}"),
        ]
    }

    /// The result for programs.
    pub(super) fn line(&self) -> Value {
        json!({
            "kind": "bar",
            "bar": self.name,
            "case": self.case,
            "target_name": self.target,
            "metric": self.metric,
            "value": self.value,
            "against": self.against,
            "against_value": self.other,
            "found": self.found(),
            "found_min": self.rounds.map(|rounds| rounds.min),
            "found_max": self.rounds.map(|rounds| rounds.max),
            "bound": self.bound,
            "is_ceiling": self.is_ceiling,
            "verdict": self.verdict(),
            "row": self.row(),
        })
    }

    fn readable(&self, value: f64) -> String {
        match self.metric.as_str() {
            "cpu" | "p50" | "p99" | "last p50" | "last p99" => readable_ns(value),
            "rate" => format!("{value:.0}/s"),
            name if name.contains("memory") => crate::report::table::readable_bytes(value),
            _ => three_digits(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Figure;

    fn bar(text: &str) -> BarSection {
        toml::from_str(&format!("name = \"b\"\ncase = \"c\"\ntarget = \"ours\"\n{text}")).unwrap()
    }

    fn target(name: &str, cpu_ns: &[u64]) -> TargetResults {
        let outcome = |cpu_ns: &u64| Outcome {
            deliveries: 1,
            elapsed_ns: 1_000_000_000,
            cpu_ns: Some(*cpu_ns),
            figures: vec![Figure { name: "grown", value: 3.0, unit: "" }],
            ..Outcome::default()
        };
        let outcomes = (1..).zip(cpu_ns.iter().map(outcome)).collect();
        TargetResults { name: name.into(), outcomes, fault: None }
    }

    fn cases() -> Vec<CaseResults> {
        let case = |name: &str, targets| CaseResults {
            name: name.into(),
            title: name.into(),
            run: String::new(),
            targets,
        };
        vec![
            case(
                "c",
                vec![
                    target("floor", &[100, 110, 90]),
                    target("ours", &[105, 120, 102]),
                    target("redis", &[200]),
                    target("nats", &[300]),
                    target("gone", &[]),
                ],
            ),
            case("d", vec![target("ours", &[50])]),
        ]
    }

    fn judged(text: &str) -> BarResult {
        bar(text).judge(&cases())
    }

    #[test]
    fn a_ratio_of_medians_is_judged_by_its_bound() {
        let against_floor = "metric = \"cpu\"\nagainst = [\"floor\"]\n";
        let result = judged(&format!("{against_floor}at_most = 1.06"));
        assert_eq!((result.is_met(), result.row()[3].as_str()), (Some(true), "1.05"));
        assert_eq!(result.row()[4], "1.05 to 1.13");
        assert_eq!(judged(&format!("{against_floor}at_most = 1.04")).verdict(), "missed");
        assert_eq!(judged(&format!("{against_floor}at_least = 1.04")).verdict(), "met");
    }

    #[test]
    fn the_ratio_is_to_the_best_of_several_targets() {
        let result = judged("metric = \"cpu\"\nagainst = [\"nats\", \"redis\"]\nat_most = 0.5");
        assert_eq!(result.row()[2], "200 ns (redis)");
        assert_eq!(result.verdict(), "missed");
    }

    #[test]
    fn another_case_and_bare_values_can_be_bars() {
        let result = judged("metric = \"cpu\"\nagainst_case = \"d\"\nat_most = 2.2");
        assert_eq!((result.row()[3].as_str(), result.verdict()), ("2.10", "met"));
        let result = judged("metric = \"grown\"\nat_most = 2.5");
        assert_eq!((result.row()[5].as_str(), result.verdict()), ("≤ 2.50", "missed"));
    }

    #[test]
    fn a_bar_that_was_not_measured_is_neither_met_nor_missed() {
        let result = judged("metric = \"cpu\"\nagainst = [\"gone\"]\nat_most = 9.0");
        assert_eq!((result.verdict(), result.row()[1].as_str()), ("not measured", "–"));
        let result = judged("metric = \"p50\"\nagainst = [\"floor\"]\nat_most = 9.0");
        assert_eq!(result.verdict(), "not measured");
        let result = judged("metric = \"cpu\"\nagainst = [\"who\"]\nat_most = 1.0");
        assert_eq!(result.verdict(), "not measured");
        assert!(bar("metric = \"cpu\"").check().is_err());
    }

    #[test]
    fn a_value_from_elsewhere_is_judged_by_its_bound() {
        let bar: BarSection = toml::from_str(
            "name = \"b\"\nmetric = \"instructions\"\nvalue = 1100.0\nat_most = 1000.0",
        )
        .unwrap();
        assert!(bar.is_about(|_| false, |_| false));
        let result = bar.judge(&[]);
        assert_eq!((result.verdict(), result.row()[1].as_str()), ("missed", "1100"));
    }

    #[test]
    fn a_bar_is_about_the_targets_of_its_ratio() {
        let bar = bar("metric = \"cpu\"\nagainst = [\"floor\", \"redis\"]\nat_most = 1.0");
        assert!(bar.is_about(|_| true, |name| name != "floor"));
        assert!(!bar.is_about(|_| true, |name| name == "ours"));
        assert!(!bar.is_about(|_| true, |name| name != "ours"));
        assert!(!bar.is_about(|name| name == "d", |_| true));
    }
}
