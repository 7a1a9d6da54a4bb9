//! The system packages that a build needs (what librdkafka's, OpenSSL's and SQLite's sources are compiled with), and those
//! that tests need (what runs Apache Kafka and fetches it, Python for readers in another language, what makes a clock step and
//! a disk of a file, and what counts instructions and system calls).

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A program that must be there, and the Debian package that brings it.
const NEEDED: [(&str, &str); 11] = [
    ("cc", "gcc"),
    ("c++", "g++"),
    ("make", "make"),
    ("perl", "perl"),
    ("java", "default-jre-headless"),
    ("mvn", "maven"),
    ("faketime", "faketime"),
    ("mkfs.ext4", "e2fsprogs"),
    ("valgrind", "valgrind"),
    ("strace", "strace"),
    // Checks the units in deploy/; it need not be what started the machine.
    ("systemd-analyze", "systemd"),
];

/// Python and its own way to keep packages apart, which Debian has in a package beside it.
const PYTHON: (&str, &str) = ("python3 with venv", "python3-venv");

/// Installs what is missing where that is allowed, and names it where not.
pub(crate) fn ensure() -> Result<(), String> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    let by_hand = format!(
        "missing {}: run sudo apt-get install -y {}",
        programs.join(", "),
        names.join(" ")
    );
    if !on_path("apt-get") {
        return Err(format!(
            "missing {}: install a C and C++ compiler, make, perl, Java 17, Maven, faketime, mkfs.ext4, valgrind, strace, systemd-analyze and Python 3 with venv",
            programs.join(", ")
        ));
    }
    let prefix: &[&str] = if succeeds(&["id", "-u"], Some("0")) {
        &[]
    } else if on_path("sudo") && succeeds(&["sudo", "-n", "true"], None) {
        &["sudo", "-n"]
    } else {
        return Err(by_hand);
    };

    println!("    installing {} with apt-get", names.join(" "));
    let mut install = vec!["apt-get", "install", "-y", "--no-install-recommends"];
    install.extend(&names);
    for arguments in [&["apt-get", "update"][..], &install] {
        let line: Vec<&str> = prefix.iter().chain(arguments).copied().collect();
        let status = Command::new(line[0])
            .args(&line[1..])
            .stdout(Stdio::null())
            .status();
        if !status.is_ok_and(|status| status.success()) {
            return Err(by_hand);
        }
    }
    Ok(())
}

fn missing() -> Vec<(&'static str, &'static str)> {
    let programs = NEEDED.into_iter().filter(|(program, _)| !on_path(program));
    let python = succeeds(&["python3", "-c", "import ensurepip, venv"], None);
    programs.chain((!python).then_some(PYTHON)).collect()
}

/// Whether a program of this name is there; those that only root may use lie where only root's `PATH` leads.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .any(|folder| folder.join(program).is_file())
}

fn succeeds(line: &[&str], expected: Option<&str>) -> bool {
    Command::new(line[0])
        .args(&line[1..])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| {
            output.status.success()
                && expected.is_none_or(|text| output.stdout.trim_ascii() == text.as_bytes())
        })
}
