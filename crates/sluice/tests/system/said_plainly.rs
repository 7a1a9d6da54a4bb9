//! What a person meets in commands who names the wrong thing, or names things by the settings file alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use testkit::{System, bin};

/// Runs a command in a folder.
fn run(folder: &Path, line: &str) -> Output {
    let mut command = Command::new(bin("sluice"));
    command.args(line.split(' ')).current_dir(folder);
    command.output().unwrap()
}

#[test]
fn errors_that_only_said_no_such_file_say_what_to_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["empty", "backups/monday"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    for name in ["plain", "backups/monday/manifest.toml"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    fs::write(folder.path().join("bad.toml"), "[netwrk]\n[ofer.x]\n").unwrap();
    let settings = "nope.toml: there is no such settings file: check its path, or leave --settings out for the defaults";
    let no_store =
        "nope: no store here yet: start `sluice up` first, or name its folder with --data";
    let no_journal = "nope: no journal here: name a worker's folder, DATA/journal/0 and so on";
    let no_file = "cannot be read: there is no such file or folder: check its path";
    for (line, said) in [
        ("up --settings nope.toml", settings),
        ("report --settings nope.toml", settings),
        ("keys create --settings nope.toml", settings),
        ("catalog apply bad.toml --settings nope.toml", settings),
        ("clicks --settings nope.toml", settings),
        ("order show northpeak 1 --settings nope.toml", settings),
        ("dump-store --settings nope.toml", settings),
        ("report --data nope", no_store),
        ("conversions --data nope", no_store),
        ("dump-store --data nope", no_store),
        ("order show northpeak 1 --data nope", no_store),
        (
            "order adjust northpeak 1 --status reversed --reason x --data nope",
            "nope: no data folder here: name the one Sluice runs on with --data or --settings",
        ),
        (
            "parked list --data nope",
            "nope: no store here: run this where the consumers run, or name their folder with --data",
        ),
        (
            "topics grow --partitions 8 --data nope",
            "kafka.brokers is missing in the settings",
        ),
        ("journal inspect nope", no_journal),
        ("journal verify nope", no_journal),
        (
            "dead-letters release 0.clicks --data nope",
            "0.clicks: no folder of dead letters: sluice dead-letters list names them",
        ),
        (
            "dead-letters list --data nope",
            "nope is no data folder: name it with --data or --settings",
        ),
        (
            "backup b --data nope",
            "nope is no data folder: name it with --data or --settings",
        ),
        (
            "restore nope --data d",
            "nope: there is no such folder: name the one that sluice backup made",
        ),
        (
            "restore plain --data d",
            "plain is a file: name the folder that sluice backup made",
        ),
        (
            "restore empty --data d",
            "empty is no backup: it has no manifest.toml, which a backup gets at its end: name the folder that sluice backup made",
        ),
        (
            "restore backups --data d",
            "backups is no backup, but holds some: name one of backups/monday",
        ),
        (
            "restore backups/monday",
            "name the data folder to make with --data, or the settings file that names it with --settings",
        ),
        ("catalog check nope.toml", &format!("nope.toml: {no_file}")),
        (
            "catalog check bad.toml",
            "bad.toml: 3 mistakes, listed above",
        ),
        (
            "catalog check plain --links nope.csv",
            "plain: network.currency: is missing",
        ),
        (
            "keys create --data plain",
            "data folder plain cannot be written: it, or what it lies in, is a file: choose another with --data",
        ),
    ] {
        let output = run(folder.path(), line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        let last = stderr.lines().last().unwrap_or_default();
        assert!(
            last.starts_with(&format!("sluice: {said}")),
            "{line}: {stderr}"
        );
        assert!(!stderr.contains("os error"), "{line}: {stderr}");
    }
    for made in ["nope", "d", "sluice-data"] {
        assert!(!folder.path().join(made).exists(), "{made}");
    }
}

#[test]
fn mistakes_of_a_file_of_links_were_counted_for_the_catalog() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let catalog = catalog::DEMO;
    let end = catalog.find("[link.").expect("the demo has links");
    fs::write(path("catalog.toml"), &catalog[..end]).unwrap();
    fs::write(path("northpeak.secret"), "long enough now").unwrap();
    let links = "slug;affiliate;offer\nfall;trailblog;bots\nfall;trailblok;boots\n;;;\n";
    fs::write(path("links.csv"), links).unwrap();
    let output = run(
        folder.path(),
        "catalog check catalog.toml --links links.csv",
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().last().unwrap_or_default();
    assert_eq!(
        last, "sluice: links.csv: 3 mistakes, listed above",
        "{stderr}"
    );
    assert!(
        stderr.contains("links.csv:3: slug: \"fall\" stands in line 2 already"),
        "{stderr}"
    );
}

#[test]
fn commands_find_the_data_folder_by_the_settings_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    System::start(&data, &[]).stop();
    let mode = |name: &str| fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("keys")), (0o700, 0o700));
    fs::write(folder.path().join("sluice.toml"), "data = 'data'\n").unwrap();
    for line in [
        "report",
        "clicks",
        "conversions",
        "parked list",
        "dump-store",
        "keys create",
        "catalog apply data/demo/catalog.toml",
        "check",
        "backup backup",
    ] {
        let output = run(folder.path(), &format!("{line} --settings sluice.toml"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {stderr}");
    }
    let restored = folder.path().join("again.toml");
    fs::write(&restored, "data = 'again'\n").unwrap();
    let output = run(folder.path(), "restore backup --settings again.toml");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(folder.path().join("again/store.sqlite").exists());
}
