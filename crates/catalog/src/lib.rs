//! The catalog: TOML that people write, checked, numbered and versioned.
//!
//! [`check`] reads a catalog and reports every mistake in it at once. [`apply`] checks, hands out numbers (kept in
//! `catalog.lock` beside the catalog), and publishes a snapshot that edges and consumers load through [`Folder`].
//! [`build`] does the same for a catalog whose links, millions of them, stand in a file of their own.
//! A catalog with a mistake publishes nothing: a bad version never replaces a good one.

mod apply;
mod build;
mod changes;
mod demo;
mod destination;
mod disk;
mod folder;
mod links;
mod lock;
mod map;
mod model;
mod numbers;
mod problem;
mod read;
mod replica;
mod secret;
mod snapshot;

pub use apply::{Applied, CATALOG_BYTES_MAX, Checked, apply, check};
pub use build::{Progress, build, check_build};
pub use changes::{Changes, Removes};
pub use demo::{DEMO, write_demo};
pub use destination::{DESTINATION_BYTES_MAX, Destination, MacroName, Part};
pub use disk::Stamp;
pub use folder::{Folder, Lookup, Start};
pub use links::{LinkEntry, Links, LinksBuilder};
pub use model::{
    Advertiser, Affiliate, Catalog, DomainEntry, Goal, GoalName, Link, LinkName, Names, Network,
    Offer, OfferName, SUBS, UNKNOWN,
};
pub use problem::{Problem, Problems};
pub use replica::{Replica, receive};
pub use secret::{SECRET_BYTES_MAX, SECRET_BYTES_MIN, SecretRef};
pub use snapshot::{Error, FORMAT};
