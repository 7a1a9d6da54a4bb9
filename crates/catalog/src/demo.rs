//! A small catalog to try the system with.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::disk;

/// The demo catalog's text.
pub const DEMO: &str = r#"# A demo catalog: change it while sluice runs, it is picked up. The number behind each name is kept in catalog.lock.

[network]
timezone = "UTC"                         # where days begin
currency = "USD"

[domain."go.northpeak.example"]          # a redirect host

[advertiser.northpeak]
name     = "North Peak Outdoors"
postback = { secret = "file:northpeak.secret" } # secrets are named here, never written here

[offer.boots]
advertiser  = "northpeak"
to          = "https://shop.northpeak.example/boots?aff={affiliate}&s={sub1}"
click_param = "npk"                      # the landing-page parameter that carries the click token
window      = "30d"                      # click to conversion

[offer.boots.goal.signup]
revenue = "4.00 USD"                     # the advertiser pays us
payout  = "3.00 USD"                     # we pay the affiliate
[offer.boots.goal.sale]
revenue = "12 %"                         # of the order's amount
payout  = "8 %"

[offer.tents]
advertiser = "northpeak"
to         = "https://shop.northpeak.example/tents"
goal.sale  = { revenue = "10 %", payout = "7 %" }

[affiliate.trailblog]
name   = "Trail Blog"
offers = ["boots", "tents"]              # approved for

[link.fall-boots]                        # https://go.northpeak.example/fall-boots
affiliate = "trailblog"
offer     = "boots"
sub1      = "newsletter"                 # a default; the visitor's own ?sub1= wins
"#;

/// Writes the demo catalog and its advertiser's secret into a folder that holds none; returns the catalog's path.
/// The secret is passed in because this crate has no randomness of its own.
///
/// # Errors
/// The folder cannot be made or written.
pub fn write_demo(folder: &Path, secret_hex: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let catalog = folder.join("catalog.toml");
    if catalog.try_exists()? {
        return Ok(catalog);
    }
    let secret = folder.join("northpeak.secret");
    if !secret.try_exists()? {
        // Private from its first byte, and whole when it gets its name.
        let temporary = folder.join("northpeak.secret.new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&temporary)?;
        writeln!(file, "{secret_hex}")?;
        file.sync_all()?;
        fs::rename(&temporary, &secret)?;
    }
    disk::replace(&catalog, DEMO.as_bytes())?;
    Ok(catalog)
}
