//! Cases: folders that say what is measured, each with a goal, the settings of the edge, and what is sent to it.
//!
//! `README.md` says what for, `case.toml` what is sent ([`Case`]), `edge.toml` how the edge is set. Beside the cases lies the
//! catalog of those that do not bring links of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Table;

use crate::measure::visits::{Choice, Links};
use crate::measure::zipf::Zipf;

/// The file of what is sent.
const CASE: &str = "case.toml";

/// The settings of the edge.
const EDGE: &str = "edge.toml";

/// What is sent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// The folder's name.
    #[serde(skip)]
    pub(crate) name: String,
    /// The edge's settings, as they stand in its file.
    #[serde(skip)]
    pub(crate) edge: Table,
    /// The link that is clicked; without it all links of a folder that `loadtest links` made.
    pub(crate) slug: Option<String>,
    /// The query, `?` included.
    #[serde(default)]
    pub(crate) query: String,
    /// Tokens of earlier clicks in the visitor's cookie.
    #[serde(default)]
    pub(crate) cookie_tokens: usize,
    /// Which of many links.
    #[serde(default)]
    choice: ChoiceName,
    /// How steep: 1 is Zipf's own law.
    #[serde(default = "one")]
    zipf_exponent: f64,
    pub(crate) connections: usize,
    /// Each request on a connection of its own.
    #[serde(default)]
    pub(crate) new_connections: bool,
    /// TLS 1.3, without resumption.
    #[serde(default)]
    pub(crate) tls: bool,
    /// Requests a second.
    pub(crate) rate: Option<f64>,
    /// The rate as a share of what a closed loop reaches first.
    pub(crate) share_of_peak: Option<f64>,
    /// How long one slice is measured.
    seconds: f64,
    /// How long the same is sent before.
    warm_up_seconds: f64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChoiceName {
    #[default]
    Uniform,
    Zipf,
}

fn one() -> f64 {
    1.0
}

/// Connections of one generator; the limit of open files is lower on most machines.
const CONNECTIONS_MAX: usize = 10_000;

impl Case {
    /// Of a folder.
    pub(crate) fn read(folder: &Path) -> Result<Case, String> {
        let mut case: Case = parse(&folder.join(CASE))?;
        case.edge = parse(&folder.join(EDGE))?;
        let name = folder.canonicalize().ok();
        let name = name.as_deref().and_then(Path::file_name);
        case.name = name.unwrap_or_default().to_string_lossy().into_owned();
        case.check()
            .map_err(|why| format!("{}: {why}", folder.join(CASE).display()))?;
        Ok(case)
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=CONNECTIONS_MAX).contains(&self.connections) {
            return Err(format!("connections is 1 to {CONNECTIONS_MAX}"));
        }
        if self.rate.is_some() && self.share_of_peak.is_some() {
            return Err("rate and share_of_peak exclude each other".to_owned());
        }
        let lasts = [self.seconds, self.warm_up_seconds];
        if !lasts.iter().all(|seconds| (0.0..=3600.0).contains(seconds)) {
            return Err("seconds and warm_up_seconds are 0 to 3600".to_owned());
        }
        let above_zero = [Some(self.zipf_exponent), self.rate, self.share_of_peak];
        if above_zero.iter().flatten().any(|value| *value <= 0.0) {
            return Err("zipf_exponent, rate and share_of_peak are above 0".to_owned());
        }
        Ok(())
    }

    /// How long a slice is measured, unless something else was asked for.
    pub(crate) fn lasts(&self, asked: Option<f64>) -> Duration {
        Duration::from_secs_f64(asked.unwrap_or(self.seconds))
    }

    /// Before a slice; never longer than the slice.
    pub(crate) fn warm_up(&self, asked: Option<f64>) -> Duration {
        let longest = asked.unwrap_or(f64::INFINITY);
        Duration::from_secs_f64(self.warm_up_seconds.min(longest))
    }

    /// How the next of these links is chosen.
    pub(crate) fn choice(&self, links: &Links) -> Choice {
        match (self.choice, links) {
            (ChoiceName::Zipf, Links::Many(slugs)) => {
                Choice::Zipf(Zipf::new(slugs.len(), self.zipf_exponent))
            }
            _ => Choice::Uniform,
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// All cases of a folder, by name.
pub(crate) fn all(folder: &Path) -> Result<Vec<Case>, String> {
    let about = |error| format!("{}: {error}", folder.display());
    let mut folders: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).map_err(about)? {
        let path = entry.map_err(about)?.path();
        if path.join(CASE).is_file() {
            folders.push(path);
        }
    }
    folders.sort();
    folders.iter().map(|folder| Case::read(folder)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_of_this_repo_has_a_goal_and_is_understood() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
        let cases = all(&folder).unwrap();
        assert!(cases.len() >= 7);
        for case in cases {
            let readme = fs::read_to_string(folder.join(&case.name).join("README.md")).unwrap();
            assert!(readme.starts_with("# "), "{}", case.name);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(EDGE), "[edge]\n").unwrap();
        let read = |more: &str| {
            let text = format!("seconds = 1.0\nwarm_up_seconds = 0.1\n{more}");
            fs::write(folder.path().join(CASE), text).unwrap();
            Case::read(folder.path())
        };
        read("connections = 64").unwrap();
        for more in [
            "connections = 0",
            "connections = 1\nrate = 1.0\nshare_of_peak = 0.5",
            "connections = 1\nrate = 0.0",
            "connections = 1\nslugs = \"a\"",
        ] {
            assert!(read(more).is_err(), "{more}");
        }
    }
}
