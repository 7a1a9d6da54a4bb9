//! What an operator may choose, as one file; flags win over it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use service::Refusal;

/// The data folder where none is named.
pub(crate) const DATA: &str = "sluice-data";

/// Which installation of this machine: the flags of every command that needs its data folder.
#[derive(Clone, Debug, Args)]
pub(crate) struct Installation {
    /// A settings file (TOML).
    #[arg(long)]
    pub(crate) settings: Option<PathBuf>,
    /// The data folder; that of the settings file, or sluice-data, where none is named.
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
}

impl Installation {
    /// The settings, with the flag that wins over them.
    pub(crate) fn load(&self) -> Result<Settings, Refusal> {
        let mut settings: Settings = service::settings::load(self.settings.as_deref())?;
        settings.data = self.data.clone().unwrap_or(settings.data);
        Ok(settings)
    }

    /// The data folder.
    pub(crate) fn data(&self) -> Result<PathBuf, Refusal> {
        Ok(self.load()?.data)
    }
}

/// The settings file of `sluice up`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where journals, stream, store, keys and catalog versions live.
    pub(crate) data: PathBuf,
    /// The catalog's file; a demo catalog is written and used where none is named.
    pub(crate) catalog: Option<PathBuf>,
    /// The file of the catalog's links, where they stand in one of their own.
    pub(crate) links: Option<PathBuf>,
    /// The edge.
    pub(crate) edge: edge::Settings,
    /// Metrics and health.
    pub(crate) admin: Admin,
    /// The reports.
    pub(crate) reports: Listen,
    /// Topics.
    pub(crate) stream: Stream,
    /// The cluster that carries them; without brokers it is the embedded stream.
    pub(crate) kafka: stream::kafka::Settings,
    /// The courier.
    pub(crate) courier: Courier,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: DATA.into(),
            catalog: None,
            links: None,
            edge: edge::Settings::default(),
            admin: Admin::default(),
            reports: Listen {
                listen: SocketAddr::from(([127, 0, 0, 1], 8090)),
            },
            stream: Stream::default(),
            kafka: stream::kafka::Settings::default(),
            courier: Courier::default(),
        }
    }
}

/// A listener; loopback addresses only.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listen {
    pub(crate) listen: SocketAddr,
}

/// Where each process serves metrics and health; loopback addresses only.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Admin {
    /// Of `sluice up`, and of `sluice-edge`.
    pub(crate) listen: SocketAddr,
    pub(crate) courier: SocketAddr,
    pub(crate) consume: SocketAddr,
    pub(crate) reports: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            listen: at(9090),
            courier: at(9091),
            consume: at(9092),
            reports: at(9095),
        }
    }
}

/// Topics.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Stream {
    /// Partitions of every topic, 1 to 256; fixed when the topics are made.
    pub(crate) partitions: u16,
    /// What topic names begin with.
    pub(crate) prefix: String,
    /// Most records a consumer folds in one transaction.
    pub(crate) batch_records_max: usize,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            partitions: 4,
            prefix: "sluice".into(),
            batch_records_max: 2000,
        }
    }
}

/// The courier.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Courier {
    /// Seconds journal files are kept after all of their records are acknowledged.
    pub(crate) retain_acked_s: u64,
    /// Keep only the network of an address (/24, /48) in events; without, no address at all leaves the machine.
    pub(crate) truncated_address: bool,
}

impl Default for Courier {
    fn default() -> Self {
        Self {
            retain_acked_s: 3600,
            truncated_address: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_file_in_deploy_is_understood() {
        let text = include_str!("../../../deploy/sluice.toml");
        let settings: Settings =
            service::settings::parse(text, Path::new("deploy/sluice.toml")).unwrap();
        assert_eq!(settings.kafka.brokers, "127.0.0.1:9092");
        assert_eq!(settings.stream.partitions, 16);
    }

    #[test]
    fn the_list_of_sections_is_that_of_this_file() {
        let problems =
            service::settings::parse::<Settings>("zzz = 1", Path::new("s.toml")).unwrap_err();
        let known = service::settings::SECTIONS.join(", ");
        assert_eq!(
            problems.to_string(),
            format!("s.toml:1: zzz: unknown setting, known here: {known}")
        );
    }

    #[test]
    fn what_is_commented_out_in_it_is_understood_too() {
        let text = include_str!("../../../deploy/sluice.toml");
        let text: String = text
            .lines()
            .map(|line| {
                format!(
                    "{}\n",
                    line.strip_prefix("# ")
                        .filter(|rest| rest.contains(" = "))
                        .unwrap_or(line)
                )
            })
            .collect();
        let settings: Settings = service::settings::parse(&text, Path::new("sluice.toml")).unwrap();
        assert_eq!(settings.kafka.security, stream::kafka::Security::SaslTls);
    }
}
