//! What measures a server from outside: a generator on one thread that costs less than any server it drives, and the
//! processor time and memory that the kernel says the server took.

pub(crate) mod generator;

pub(crate) mod answer;
pub(crate) mod connection;
pub(crate) mod visits;
pub(crate) mod zipf;

pub(crate) mod process;

pub(crate) mod estimate;
