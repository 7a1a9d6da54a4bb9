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

/// Written by the version before, of the same sample.
const FORMAT_1: &str = "
534c5549434543540100000096352cf45f010000000000000720303031313232
33333434353536363737383839396161626263636464656566660d4575726f70
652f4265726c696e45555201010a676f2e6578616d706c65011068747470733a
2f2f6578616d706c652f0101096e6f7274687065616b0a4e6f72746820506561
6b55534402001c2f6574632f736c756963652f6e6f7274687065616b2e736563
72657401094e4f5254485045414b010105626f6f74730106001f68747470733a
2f2f73686f702e6578616d706c652f626f6f74733f6166663d01000000032673
3d010800010202736c0002237802736c80b8992901010473616c650180b6dc05
00809bee02555344010109747261696c626c6f6709747261696c626c6f670101
01010466616c6c01010100046d61696c000000000000000001010a676f2e6578
616d706c650101096e6f7274687065616b010105626f6f747301010101047361
6c65010109747261696c626c6f6701010466616c6c0101";

#[test]
fn format_1_is_read() {
    let hex: String = FORMAT_1.split_whitespace().collect();
    let bytes: Vec<u8> = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex"))
        .collect();
    assert_eq!(Catalog::decode(&bytes).expect("read"), sample());
    for at in 12..bytes.len() {
        let mut bent = bytes.clone();
        bent[at] ^= 1;
        assert!(Catalog::decode(&bent).is_err(), "byte {at}");
        assert!(Catalog::decode(&bytes[..at]).is_err(), "cut to {at}");
    }
}

#[test]
fn refusals() {
    let good = sample().encode().expect("small");
    let said = |bytes: &[u8]| Catalog::decode(bytes).expect_err("refused").to_string();
    let mut newer = good.clone();
    newer[8] = 3;
    assert_eq!(
        said(&newer),
        "catalog snapshot of format 3, this version reads up to 2: use a newer version of sluice"
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
        folder
            .current_unverified()
            .map(|found| found.expect("named by current"))
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
