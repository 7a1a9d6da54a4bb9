//! `cargo xtask bench`: measures the parts of a redirect and what it costs as a whole, and keeps the run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::{budget, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the run is kept: a folder that is made, `benches/runs/DAY-WHAT` for one that is published
    #[arg(long)]
    into: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let root = workspace::root();
    let target = workspace::metadata(&root)?
        .target_directory
        .into_std_path_buf();
    let into = root.join(&arguments.into);
    fs::create_dir_all(&into).map_err(|error| format!("{}: {error}", into.display()))?;
    let keep = |name: &str, text: &str| {
        let path = into.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    keep("machine.txt", &machine())?;

    let (counts, steps) = budget::measure(&root, &target)?;
    print!("{}", budget::table(&counts));
    keep("counts.toml", &budget::text(&counts)?)?;
    keep("steps.txt", &steps)?;

    let scratch = target.join("append-latency");
    let append = output(
        Command::new(target.join("release/append-latency"))
            .arg("--folder")
            .arg(&scratch),
    )?;
    fs::remove_dir_all(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
    print!("    journal append: {append}");
    keep("append.json", &append)?;
    let append: Value = serde_json::from_str(&append).map_err(|error| error.to_string())?;

    let parts = output(
        Command::new(workspace::cargo())
            .args(["bench", "-p", "benches", "--benches", "--", "--noplot"])
            .current_dir(&root),
    )?;
    print!("{parts}");
    keep("parts.txt", &parts)?;

    // What loadtest compare takes into its table.
    let bench = json!({
        "instructions_per_redirect": counts.plain.instructions,
        "instructions_per_redirect_full": counts.full.instructions,
        "instructions_per_redirect_bare": counts.bare.instructions,
        "allocations_per_redirect_over_bare": counts.plain.allocations - counts.bare.allocations,
        "allocations_per_redirect_full_over_bare": counts.full.allocations - counts.bare.allocations,
        "append_mean_ns": append["mean_ns"],
        "append_p999_ns": append["p999_ns"],
    });
    keep("bench.json", &format!("{bench:#}\n"))?;
    println!("kept in {}", into.display());
    Ok(())
}

fn output(command: &mut Command) -> Result<String, String> {
    let name = Path::new(command.get_program()).display().to_string();
    let output = command
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}

/// What it ran on; a line each, empty where it cannot be told.
fn machine() -> String {
    let of = |line: &[&str]| {
        let said = output(Command::new(line[0]).args(&line[1..]));
        said.unwrap_or_default().trim().to_owned()
    };
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut models = processors
        .lines()
        .filter(|line| line.starts_with("model name"));
    let count = models.clone().count();
    let model = models.next().and_then(|line| line.split_once(": "));
    format!(
        "command: cargo xtask bench\ncommit: {}\nprocessors: {count} of {}\nkernel: {}\ncompiler: {}\nvalgrind: {}\n",
        of(&["git", "rev-parse", "HEAD"]),
        model.map_or("", |(_, model)| model),
        of(&["uname", "-sr"]),
        of(&["rustc", "--version"]),
        of(&["valgrind", "--version"]),
    )
}
