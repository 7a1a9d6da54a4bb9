//! Reports over the store, read only: tables, CSV and JSON, the HTTP API, and what became of an order.
//!
//! Events and rollups carry numbers; here they meet the catalog's names.

mod clicks;
mod conversions;
mod error;
mod format;
mod http;
pub mod list;
mod names;
mod order;
mod query;
mod report;

pub use clicks::{CLICK_COLUMNS, clicks};
pub use conversions::{CONVERSION_COLUMNS, conversions};
pub use error::Error;
pub use format::{FORMATS, Format};
pub use http::serve;
pub use order::{OrderQuery, OrderReport, goals, order, order_key};
pub use query::{By, Parameters, ReportQuery, Span};
pub use report::{GROUPS_MAX, Group, READ_MAX, Report, run};

/// What every fallible function here returns.
pub type Result<T> = std::result::Result<T, Error>;
