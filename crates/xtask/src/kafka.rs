//! `cargo xtask kafka`: the broker that the tests use, by hand.

use std::path::PathBuf;

use testkit::kafka::{self, Broker};
use testkit::wait;

use crate::workspace;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fetch Apache Kafka and start nothing
    #[arg(long)]
    fetch: bool,
    /// Where the broker keeps what it is sent; a folder that is thrown away where none is named
    #[arg(long)]
    folder: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let target = workspace::metadata(&workspace::root())?.target_directory;
    let jars = target.into_std_path_buf().join("kafka");
    kafka::fetch(&jars)?;
    if arguments.fetch {
        println!("Apache Kafka {} is in {}", kafka::VERSION, jars.display());
        return Ok(());
    }
    let temporary = tempfile::tempdir().map_err(|error| error.to_string())?;
    let folder = match &arguments.folder {
        Some(folder) => folder.clone(),
        None => temporary.path().join("kafka"),
    };
    let mut broker = Broker::start(&jars, &folder, &[]);
    let address = broker.address();
    println!(
        "Apache Kafka {} listens on {address}. Next:",
        kafka::VERSION
    );
    println!("  cargo run --release -- topics create --kafka {address} --replication 1");
    println!("  cargo run --release -- up --kafka {address}");
    // Ctrl-C reaches the broker too, which ends in good order.
    loop {
        let ended = broker
            .running()
            .is_none_or(|running| running.ended().is_some());
        if ended {
            return Ok(());
        }
        wait::pass(std::time::Duration::from_millis(200));
    }
}
