//! `loadtest catalog`: the catalog under which a file of real clicks makes sense. Each app becomes an offer, each channel an
//! affiliate that is approved for exactly the offers it has clicks for.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::clicks_file::{self, Click, affiliate_name, offer_name};

/// The redirect host of the replayed clicks.
pub(crate) const HOST: &str = "go.replay.example";

/// The advertiser's secret, beside the catalog.
pub(crate) const SECRET_FILE: &str = "market.secret";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The file of clicks (.csv or .csv.gz)
    #[arg(long)]
    csv: PathBuf,
    /// The folder to write catalog.toml and the secret to
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let clicks = clicks_file::read(&arguments.csv, None)?;
    fs::create_dir_all(&arguments.out)
        .map_err(|error| format!("{}: {error}", arguments.out.display()))?;
    let path = arguments.out.join("catalog.toml");
    fs::write(&path, text(&clicks)).map_err(|error| format!("{}: {error}", path.display()))?;
    let secret = arguments.out.join(SECRET_FILE);
    keep_secret(&secret).map_err(|error| format!("{}: {error}", secret.display()))?;
    println!("wrote {} and {}", path.display(), secret.display());
    Ok(())
}

fn text(clicks: &[Click]) -> String {
    let mut offers = BTreeSet::new();
    let mut approved: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    for click in clicks {
        offers.insert(click.app);
        approved.entry(click.channel).or_default().insert(click.app);
    }

    let mut text = format!(
        "# The catalog for a replay of recorded clicks, written by loadtest: an app is an offer, a channel an affiliate.\n\
         \n\
         [network]\n\
         timezone = \"Asia/Shanghai\"\n\
         currency = \"USD\"\n\
         \n\
         [domain.\"{HOST}\"]\n\
         \n\
         [advertiser.market]\n\
         currency = \"USD\"\n\
         postback = {{ secret = \"file:{SECRET_FILE}\" }}\n"
    );
    for app in offers {
        let name = offer_name(app);
        write!(
            text,
            "\n\
             [offer.{name}]\n\
             advertiser = \"market\"\n\
             to = \"https://shop.replay.example/app/{app}?aff={{affiliate}}\"\n\
             goal.install = {{ revenue = \"1.00 USD\", payout = \"0.70 USD\" }}\n"
        )
        .expect("a string takes everything");
    }
    for (channel, apps) in approved {
        let name = affiliate_name(channel);
        let offers: Vec<String> = apps
            .into_iter()
            .map(|app| format!("\"{}\"", offer_name(app)))
            .collect();
        write!(
            text,
            "\n\
             [affiliate.{name}]\n\
             offers = [{}]\n",
            offers.join(", ")
        )
        .expect("a string takes everything");
    }
    text
}

/// Writes a random secret, unless there is one: the running system may know it already.
fn keep_secret(path: &Path) -> io::Result<()> {
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = match created {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut random = [0; 24];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let mut secret = String::new();
    for byte in random {
        write!(secret, "{byte:02x}").expect("a string takes everything");
    }
    writeln!(file, "{secret}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn click(app: u32, channel: u32) -> Click {
        Click {
            ip: 1,
            app,
            device: 1,
            os: 1,
            channel,
            attributed: false,
        }
    }

    #[test]
    fn each_channel_is_approved_for_the_apps_it_has_clicks_for() {
        let text = text(&[click(3, 7), click(2, 7), click(3, 7), click(3, 8)]);
        assert_eq!(text.matches("\n[offer.").count(), 2);
        assert!(
            text.contains("[affiliate.channel-7]\noffers = [\"app-2\", \"app-3\"]\n"),
            "{text}"
        );
        assert!(
            text.contains("[affiliate.channel-8]\noffers = [\"app-3\"]\n"),
            "{text}"
        );
        assert!(
            text.contains("https://shop.replay.example/app/3?aff={affiliate}"),
            "{text}"
        );
    }

    #[test]
    fn a_secret_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SECRET_FILE);
        keep_secret(&path).unwrap();
        let secret = fs::read_to_string(&path).unwrap();
        assert_eq!(secret.trim().len(), 48);
        keep_secret(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), secret);
    }
}
