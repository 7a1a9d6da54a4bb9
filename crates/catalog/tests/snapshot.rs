//! The snapshot's bytes are a promise.

use std::{fs, path::PathBuf};

use catalog::{Catalog, Folder, SecretRef, check};

const CATALOG: &str = r#"
[network]
timezone = "Europe/Berlin"
currency = "EUR"
[domain."go.example"]
fallback = "https://example/"
[advertiser.northpeak]
name = "North Peak"
currency = "USD"
[offer.boots]
advertiser = "northpeak"
to = "https://shop.example/boots?aff={affiliate}&s={sub1_raw}#x"
window = "1d"
goal.sale = { revenue = "12 %", payout = "3.00 USD" }
[affiliate.trailblog]
offers = ["boots"]
[link.fall]
affiliate = "trailblog"
offer = "boots"
sub2 = "mail"
"#;

fn sample() -> Catalog {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("catalog.toml");
    fs::write(&path, CATALOG).expect("writable");
    let mut catalog = check(&path).expect("good").catalog;
    catalog.version = 7;
    catalog.hash = 0x0102_0304_0506_0708;
    catalog.lock_id = "00112233445566778899aabbccddeeff".into();
    for advertiser in catalog.advertisers.values_mut() {
        advertiser.secrets = vec![
            SecretRef::File(PathBuf::from("/etc/sluice/northpeak.secret")),
            SecretRef::Env("NORTHPEAK".to_owned()),
        ];
    }
    catalog
}

#[test]
fn golden() {
    let bytes = sample().encode().expect("small");
    let hex: Vec<String> = bytes
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    insta::assert_snapshot!(hex.join("\n"));
    assert_eq!(Catalog::decode(&bytes).expect("its own"), sample());
}

#[test]
fn refusals() {
    let good = sample().encode().expect("small");
    let said = |bytes: &[u8]| Catalog::decode(bytes).expect_err("refused").to_string();
    let mut newer = good.clone();
    newer[8] = 4;
    assert_eq!(
        said(&newer),
        "catalog snapshot of format 4, this version reads format 3: use the version of sluice that wrote it, or apply the catalog again"
    );
    assert_eq!(said(b""), "not a catalog snapshot");
    assert_eq!(
        said(b"PK\x03\x04 something else entirely"),
        "not a catalog snapshot"
    );
    for at in 12..good.len() {
        let mut bent = good.clone();
        bent[at] ^= 1;
        assert_eq!(
            said(&bent),
            "catalog snapshot is damaged: restore it from backup",
            "byte {at}"
        );
    }
    for length in 8..good.len() {
        assert!(said(&good[..length]).contains("damaged"), "cut to {length}");
    }
    let mut longer = good;
    longer.push(0);
    assert!(said(&longer).contains("damaged"));
}

/// Opened without the check of the whole, a damaged file is refused at once or found by that check.
#[test]
fn damage_is_found_at_once_or_by_the_check_of_the_whole() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let good = sample().encode().expect("small");
    fs::write(data.path().join("current"), "7\n").expect("writable");
    let path = data.path().join("7.snapshot");
    let opened = |bytes: &[u8]| {
        // Another file each time: a mapped one is never changed.
        let new = data.path().join("new");
        fs::write(&new, bytes).expect("writable");
        fs::rename(&new, &path).expect("writable");
        let mut folder = Folder::open(data.path()).expect("a folder");
        match folder.start()? {
            Some(start) => start.refused.map_or(Ok(start.catalog), Err),
            None => panic!("named by current"),
        }
    };
    assert_eq!(*opened(&good).expect("good"), sample());
    let mut late = 0;
    for at in 12..good.len() {
        let mut bent = good.clone();
        bent[at] ^= 1;
        if let Ok(catalog) = opened(&bent) {
            late += 1;
            assert!(catalog.verify().is_err(), "byte {at}");
        }
        assert!(opened(&good[..at]).is_err(), "cut to {at}");
    }
    assert_eq!(
        late,
        9 + "fall".len() + 2 + 2 + "mail".len(),
        "the one entry"
    );
}
