//! Reports over the store, read only: tables, CSV and JSON, the HTTP API, and why a conversion is what it is.
//!
//! Events and rollups carry numbers; here they meet the catalog's names.

mod error;
mod explain;
mod format;
mod http;
mod names;
mod query;
mod report;

pub use error::Error;
pub use explain::explain;
pub use format::{FORMATS, Format};
pub use http::serve;
pub use query::{By, ReportQuery};
pub use report::{Group, Report, run};

/// What every fallible function here returns.
pub type Result<T> = std::result::Result<T, Error>;
