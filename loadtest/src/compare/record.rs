//! What a run leaves behind: every slice as a line of JSON, after a line that says on which machine and of what.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::compare::servers::Yard;

/// The file of slices.
const SLICES: &str = "slices.jsonl";

/// A run's folder; nothing is kept where none was named.
pub(crate) struct Record {
    folder: Option<PathBuf>,
    slices: Option<File>,
}

impl Record {
    /// Begins with the machine, the command and the versions, which it also prints.
    pub(crate) fn create(
        folder: Option<&Path>,
        bin: &Path,
        yard: &Yard,
    ) -> Result<Record, Box<dyn Error>> {
        let head = json!({
            "command": std::env::args().skip(1).collect::<Vec<_>>().join(" "),
            "commit": commit(),
            "machine": machine(),
            "edge": version(&bin.join("sluice-edge"), "--version"),
            "nginx": yard.nginx_path().ok().map(|path| version(path, "-V")),
            "cores": {"server": yard.cores[0], "generator": yard.cores[1]},
        });
        println!("{head}");
        let mut record = Record {
            folder: folder.map(Path::to_path_buf),
            slices: None,
        };
        if let Some(folder) = folder {
            let about = |error| format!("{}: {error}", folder.display());
            fs::create_dir_all(folder).map_err(about)?;
            record.slices = Some(File::create(folder.join(SLICES)).map_err(about)?);
        }
        record.line(&head)?;
        Ok(record)
    }

    /// A line of the file.
    pub(crate) fn line(&mut self, value: &Value) -> Result<(), String> {
        match &mut self.slices {
            Some(file) => writeln!(file, "{value}").map_err(|error| format!("{SLICES}: {error}")),
            None => Ok(()),
        }
    }

    /// The table as it was printed.
    pub(crate) fn table(&self, text: &str) -> Result<(), String> {
        self.file("table.txt", text)
    }

    /// A file beside it.
    pub(crate) fn file(&self, name: &str, text: &str) -> Result<(), String> {
        match &self.folder {
            Some(folder) => fs::write(folder.join(name), text)
                .map_err(|error| format!("{}: {error}", folder.join(name).display())),
            None => Ok(()),
        }
    }
}

/// The commit of the folder it runs in, and whether something was changed since; empty where that is not one of git.
fn commit() -> String {
    let mut git = Command::new("git");
    git.args([
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]);
    let output = git.output().map(|output| output.stdout);
    let said = String::from_utf8_lossy(&output.unwrap_or_default()).into_owned();
    said.trim().to_owned()
}

/// What the machine says of itself.
fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.map(|value| value.trim_start_matches([':', ' ', '\t']).trim().to_owned())
    };
    let cpus = read("/proc/cpuinfo");
    json!({
        "cpu": field(&cpus, "model name"),
        "cores": cpus.lines().filter(|line| line.starts_with("processor")).count(),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

/// The first lines of what a program says of its version: where it was built is nobody's business.
fn version(program: &Path, flag: &str) -> String {
    let Ok(output) = Command::new(program).arg(flag).output() else {
        return "not there".to_owned();
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("configure arguments"));
    lines.collect::<Vec<_>>().join("; ")
}
