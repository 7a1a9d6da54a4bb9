//! Logs go to standard error, one line each: a fixed lower-case phrase plus fields.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// The variable that says what is logged, in `tracing`'s filter syntax: `debug`, `info,edge=trace`, …
pub const FILTER_VARIABLE: &str = "SLUICE_LOG";

/// What is logged when nobody asked for anything else.
const FILTER_DEFAULT: &str = "info";

/// Starts logging for this process. A second call changes nothing, so that tests may call it freely.
pub fn init() {
    let asked = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let parsed = if asked.is_empty() {
        Ok(EnvFilter::new(FILTER_DEFAULT))
    } else {
        EnvFilter::try_new(&asked)
    };
    let mistake = parsed.as_ref().err().map(ToString::to_string);
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));

    let subscriber = fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(filter)
        .finish();
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        return;
    }
    if let Some(mistake) = mistake {
        tracing::warn!(
            variable = FILTER_VARIABLE,
            value = asked,
            mistake,
            "log filter not understood, using info"
        );
    }
}
