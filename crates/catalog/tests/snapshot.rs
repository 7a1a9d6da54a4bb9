//! The snapshot's bytes are a promise.

use std::{fs, path::PathBuf};

use catalog::{Catalog, SecretRef, check};

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
    let bytes = sample().encode();
    let hex: Vec<String> = bytes
        .chunks(32)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    insta::assert_snapshot!(hex.join("\n"));
    assert_eq!(Catalog::decode(&bytes).expect("its own"), sample());
}

#[test]
fn refusals() {
    let good = sample().encode();
    let said = |bytes: &[u8]| Catalog::decode(bytes).expect_err("refused").to_string();
    let mut newer = good.clone();
    newer[8] = 2;
    assert_eq!(
        said(&newer),
        "catalog snapshot of format 2, this version reads up to 1: use a newer version of sluice"
    );
    assert!(Catalog::decode(&newer).expect_err("refused").is_newer());
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
