//! Arguments, and medians of interleaved rounds: the same lines as those of `bin/bench tube`.

use crate::host::idle_cpus;
use std::time::Duration;

pub struct Options {
    json: bool,
    rounds: usize,
    /// Duration of one measurement.
    pub time: Duration,
    idle_cpus: f64,
}

impl Options {
    /// `--quick`, `--json`, `--rounds N`, `--ms MILLISECONDS`; Cargo's own `--bench` is ignored.
    pub fn parse() -> Options {
        let (mut json, mut quick, mut rounds, mut ms) = (false, false, None, None);
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--json" => json = true,
                "--quick" => quick = true,
                "--rounds" => rounds = number(arguments.next()),
                "--ms" => ms = number(arguments.next()),
                "--bench" => {}
                other => usage(other),
            }
        }
        let (default_rounds, default_ms) = if quick { (5, 50) } else { (15, 400) };
        let options = Options {
            json,
            rounds: rounds.unwrap_or(default_rounds),
            time: Duration::from_millis(ms.unwrap_or(default_ms) as u64),
            idle_cpus: idle_cpus(),
        };
        if !json {
            println!(
                "case               metric        value  baseline     its value   ratio (least to most), rounds, idle CPUs"
            );
        }
        options
    }

    /// One warm-up, and then all rounds, each of the ring and its baseline.
    pub fn rounds(&self, mut round: impl FnMut() -> (f64, f64)) -> Vec<(f64, f64)> {
        round();
        (0..self.rounds).map(|_| round()).collect()
    }

    pub fn print(&self, line: &Line) {
        let Line {
            case,
            metric,
            baseline,
            value,
            baseline_value,
            ratio,
            least,
            most,
            rounds,
        } = line;
        let idle = self.idle_cpus;
        if self.json {
            println!(
                r#"{{"bench":"ring","case":"{case}","metric":"{metric}","value":{value:.4e},"baseline":"{baseline}","baseline_value":{baseline_value:.4e},"ratio":{ratio:.4},"ratio_min":{least:.4},"ratio_max":{most:.4},"rounds":{rounds},"idle_cpus":{idle:.2}}}"#
            );
        } else {
            println!(
                "{case:18} {metric:11} {value:8.3e}  {baseline:11} {baseline_value:8.3e}  {ratio:6.3} ({least:.3} to {most:.3}), {rounds}, {idle:.1}"
            );
        }
    }
}

fn number(text: Option<String>) -> Option<usize> {
    let number = text.as_deref().and_then(|text| text.parse().ok());
    if number.is_none_or(|number| number == 0) {
        usage(&format!("{text:?}"));
    }
    number
}

fn usage(what: &str) -> ! {
    eprintln!(
        "bench: unknown argument {what}; [--quick] [--json] [--rounds N] [--ms MILLISECONDS]"
    );
    std::process::exit(2)
}

/// One result.
pub struct Line {
    case: &'static str,
    metric: &'static str,
    baseline: &'static str,
    value: f64,
    baseline_value: f64,
    ratio: f64,
    least: f64,
    most: f64,
    rounds: usize,
}

impl Line {
    /// Medians of the rounds. Ratios are taken within a round, measured under the same conditions.
    pub fn new(
        case: &'static str,
        metric: &'static str,
        baseline: &'static str,
        rounds: &[(f64, f64)],
    ) -> Line {
        let ratios = sorted(rounds.iter().map(|(value, base)| value / base));
        Line {
            case,
            metric,
            baseline,
            value: median(&sorted(rounds.iter().map(|round| round.0))),
            baseline_value: median(&sorted(rounds.iter().map(|round| round.1))),
            ratio: median(&ratios),
            least: ratios[0],
            most: ratios[ratios.len() - 1],
            rounds: rounds.len(),
        }
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[half],
        _ => (sorted[half - 1] + sorted[half]) / 2.0,
    }
}
