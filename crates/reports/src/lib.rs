//! Reports over the store, read only: tables, CSV and JSON, the HTTP API, and what became of an order.
//!
//! Events and rollups carry numbers; here they meet the catalog's names.

mod error;
mod format;
mod http;
mod names;
mod order;
mod query;
mod report;

pub use error::Error;
pub use format::{FORMATS, Format};
pub use http::serve;
pub use order::{OrderQuery, OrderReport, goals, order, order_key};
pub use query::{By, ReportQuery};
pub use report::{Group, Report, run};

/// What every fallible function here returns.
pub type Result<T> = std::result::Result<T, Error>;
