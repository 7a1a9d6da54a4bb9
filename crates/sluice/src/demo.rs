//! A first catalog to play with, and what to try on it.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::settings::{DATA, Settings};

/// Writes the demo catalog where there is none; its path.
pub(crate) fn write(data: &Path) -> Result<PathBuf, String> {
    let folder = data.join("demo");
    catalog::write_demo(&folder, &edge::keys::random_hex())
        .map_err(|error| format!("{}: {error}", folder.display()))
}

/// Whether the demo catalog is there.
pub(crate) fn exists(data: &Path) -> bool {
    data.join("demo").exists()
}

/// Lines that are ready to paste.
pub(crate) fn lines(settings: &Settings, edge: &str, reports: SocketAddr) -> String {
    let secret = settings.data.join("demo/northpeak.secret");
    let data = if settings.data == Path::new(DATA) {
        String::new()
    } else {
        format!(" --data {}", settings.data.display())
    };
    format!(
        "Try, in another terminal:\n\
         \n  # a click: a redirect, a token, a cookie\n  curl -i '{edge}/fall-boots'\n\
         \n  # the advertiser reports the sale the token led to\n\
         \x20 TOKEN=$(curl -s -o /dev/null -w '%{{redirect_url}}' '{edge}/fall-boots' | sed 's/.*[?&]npk=//')\n\
         \x20 curl \"{edge}/postback?token=$TOKEN&order=1001&goal=sale&amount=80.00&secret=$(cat {})\"\n\
         \n  # who earned what\n\
         \x20 curl 'http://{reports}/api/v1/report?by=affiliate,offer&format=table'\n\
         \x20 cargo run --release -- report --by affiliate,offer{data}\n\
         \x20 cargo run --release -- order show northpeak 1001{data}\n\n",
        secret.display()
    )
}
