//! The units in `deploy/systemd`, read as systemd reads them and held against the commands and the settings in `deploy`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{bin, skip};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/systemd")
}

/// The units of a kind: name and the values of each key.
fn units(kind: &str) -> Vec<(String, BTreeMap<String, Vec<String>>)> {
    let entries = fs::read_dir(folder()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == kind));
    let unit = |path: PathBuf| {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in fs::read_to_string(&path).unwrap().lines() {
            if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                values
                    .entry(key.to_owned())
                    .or_default()
                    .push(value.to_owned());
            }
        }
        (
            path.file_name().unwrap().to_str().unwrap().to_owned(),
            values,
        )
    };
    paths.map(unit).collect()
}

fn only<'u>(unit: &'u BTreeMap<String, Vec<String>>, key: &str) -> &'u str {
    match unit.get(key).map(Vec::as_slice) {
        Some([value]) => value,
        other => panic!("{key}: {other:?}"),
    }
}

#[test]
fn each_service_starts_a_command_there_is_with_the_settings_in_deploy() {
    let settings = fs::read_to_string(folder().join("../sluice.toml")).unwrap();
    let settings: toml::Table = settings.parse().unwrap();
    let services = units("service");
    assert!(services.iter().any(|(name, _)| name == "sluice.service"));
    for (name, unit) in services {
        let mut words = only(&unit, "ExecStart").split(' ');
        let program = words.next().unwrap();
        let words: Vec<&str> = words.collect();
        let Some((command, ["--settings", file])) = words.split_last_chunk() else {
            panic!("{name}: {words:?}");
        };
        assert_eq!(*file, "/etc/sluice/sluice.toml", "{name}");
        // A flag that is not there ends with 2 and names it.
        let help = Command::new(bin(program.strip_prefix("/usr/bin/").unwrap()))
            .args(command)
            .arg("--help")
            .output()
            .unwrap();
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(help.contains("--settings"), "{name}: {help}");

        let data = format!("/var/lib/{}", only(&unit, "StateDirectory"));
        assert_eq!(settings["data"].as_str(), Some(&*data), "{name}");
        for (key, value) in [
            ("User", "sluice"),
            ("StartLimitIntervalSec", "0"),
            ("Restart", "always"),
            ("ExecReload", "/bin/kill -HUP $MAINPID"),
            ("NoNewPrivileges", "yes"),
            ("ProtectSystem", "strict"),
        ] {
            assert_eq!(only(&unit, key), value, "{name}");
        }
        if ["sluice.service", "sluice-edge.service"].contains(&&*name) {
            assert_eq!(only(&unit, "LimitMEMLOCK"), "infinity", "{name}");
            let runtime = only(&unit, "RuntimeDirectory");
            let rings = format!("SLUICE_RING_FOLDER=%t/{runtime}");
            assert_eq!(only(&unit, "Environment"), rings, "{name}");
            assert_eq!(
                only(&unit, "AmbientCapabilities"),
                "CAP_NET_BIND_SERVICE",
                "{name}"
            );
        }
    }
    // Whoever drains a dead edge needs its rings, and nobody who stops takes them away.
    let keepers = units("service");
    let keepers = keepers
        .iter()
        .filter(|(_, unit)| unit.contains_key("RuntimeDirectory"));
    let names = keepers.map(|(name, unit)| {
        assert_eq!(only(unit, "RuntimeDirectory"), "sluice", "{name}");
        assert_eq!(only(unit, "RuntimeDirectoryMode"), "0700", "{name}");
        assert_eq!(only(unit, "RuntimeDirectoryPreserve"), "yes", "{name}");
        name.as_str()
    });
    let names: BTreeSet<&str> = names.collect();
    let expected = [
        "sluice-courier.service",
        "sluice-edge.service",
        "sluice.service",
    ];
    assert_eq!(names, BTreeSet::from(expected));
    let sockets = units("socket");
    assert_eq!(sockets.len(), 2);
    for (name, unit) in sockets {
        let listen = settings["edge"]["listen"].as_str();
        assert_eq!(Some(only(&unit, "ListenStream")), listen, "{name}");
    }
}

#[test]
fn systemd_finds_no_mistake_in_the_units() {
    let name = "systemd_finds_no_mistake_in_the_units";
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        return skip(name, "systemd-analyze is not there");
    }
    // The programs are not installed where the units look for them.
    let copies = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for kind in ["service", "socket"] {
        for (name, _) in units(kind) {
            let text = fs::read_to_string(folder().join(&name)).unwrap();
            let text = ["sluice-edge", "sluice"]
                .iter()
                .fold(text, |text, program| {
                    text.replace(
                        &format!("=/usr/bin/{program} "),
                        &format!("={} ", bin(program).display()),
                    )
                });
            let path = copies.path().join(&name);
            fs::write(&path, text).unwrap();
            names.push(path);
        }
    }
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&names)
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    // What is said of other units of this machine is not ours.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("sluice"))
        .collect();
    assert!(ours.is_empty(), "{}", ours.join("\n"));
}
