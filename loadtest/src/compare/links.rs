//! Folders with many links: what `loadtest links --into FOLDER` wrote, and beside it the data folder `FOLDER/data` that
//! `sluice catalog build` made of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Table;

use crate::measure::visits::SLUG_BYTES;

/// Columns of `links.csv`.
const SLUG: &str = "slug";

/// One such folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) data: PathBuf,
    pub(crate) host: String,
    pub(crate) destination_bytes: usize,
    pub(crate) slugs: Arc<Vec<[u8; SLUG_BYTES]>>,
}

impl Folder {
    /// Reads the slugs and the host.
    pub(crate) fn read(folder: &Path) -> Result<Folder, String> {
        let file = folder.join("catalog.toml");
        let about = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let text = fs::read_to_string(&file).map_err(|error| about(&error))?;
        let catalog: Table = toml::from_str(&text).map_err(|error| about(&error))?;
        let hosts = catalog.get("domain").and_then(toml::Value::as_table);
        let host = hosts.and_then(|hosts| hosts.keys().next());
        let data = folder.join("data");
        if !data.is_dir() {
            let (folder, data) = (folder.display(), data.display());
            return Err(format!(
                "{data} is not there: run sluice catalog build --catalog {folder}/catalog.toml \
                 --links {folder}/links.csv --data {data}"
            ));
        }
        Ok(Folder {
            data,
            destination_bytes: destination_bytes(&catalog),
            host: host.ok_or_else(|| about(&"no domain"))?.clone(),
            slugs: Arc::new(slugs(&folder.join("links.csv"))?),
        })
    }

    /// The snapshot in force.
    pub(crate) fn snapshot(&self) -> Result<PathBuf, String> {
        let current = self.data.join("catalog/current");
        let version = fs::read_to_string(&current);
        let version = version.map_err(|error| format!("{}: {error}", current.display()))?;
        Ok(current.with_file_name(format!("{}.snapshot", version.trim_end())))
    }

    /// The versions there are, oldest first.
    pub(crate) fn versions(&self) -> Result<Vec<u32>, String> {
        let folder = self.data.join("catalog");
        let about = |error| format!("{}: {error}", folder.display());
        let mut versions = Vec::new();
        for entry in fs::read_dir(&folder).map_err(about)? {
            let name = entry.map_err(about)?.file_name();
            let name = name
                .to_str()
                .and_then(|name| name.strip_suffix(".snapshot"));
            versions.extend(name.and_then(|version| version.parse::<u32>().ok()));
        }
        versions.sort_unstable();
        Ok(versions)
    }

    /// Makes a version the one in force, as publishing it does in the end.
    pub(crate) fn make_current(&self, version: u32) -> Result<(), String> {
        let current = self.data.join("catalog/current");
        let young = current.with_extension("new");
        fs::write(&young, format!("{version}\n"))
            .and_then(|()| fs::rename(&young, &current))
            .map_err(|error| format!("{}: {error}", current.display()))
    }
}

/// Bytes of all destinations of a catalog: they are the offers', and no link has one of its own.
fn destination_bytes(catalog: &Table) -> usize {
    let offers = catalog.get("offer").and_then(toml::Value::as_table);
    let destinations = offers
        .into_iter()
        .flatten()
        .filter_map(|(_, offer)| offer.get("to")?.as_str());
    destinations.map(str::len).sum()
}

fn slugs(file: &Path) -> Result<Vec<[u8; SLUG_BYTES]>, String> {
    let about = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let mut reader = csv::Reader::from_path(file).map_err(|error| about(&error))?;
    let headers = reader.byte_headers().map_err(|error| about(&error))?;
    let column = headers.iter().position(|name| name == SLUG.as_bytes());
    let column = column.ok_or_else(|| about(&"no column slug"))?;
    let mut slugs = Vec::new();
    let mut record = csv::ByteRecord::new();
    while reader
        .read_byte_record(&mut record)
        .map_err(|error| about(&error))?
    {
        let slug = record.get(column).and_then(|slug| slug.try_into().ok());
        slugs.push(slug.ok_or_else(|| about(&format!("a slug without {SLUG_BYTES} bytes")))?);
    }
    if slugs.is_empty() {
        return Err(about(&"no links"));
    }
    Ok(slugs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_and_host_are_found_and_what_is_missing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let catalog = "[domain.\"go.x.example\"]\n[offer.x]\nto = \"https://x.example/\"\n";
        fs::write(path.join("catalog.toml"), catalog).unwrap();
        fs::write(
            path.join("links.csv"),
            "affiliate,slug\na,AAAA0000\nb,BBBB1111\n",
        )
        .unwrap();
        let missing = Folder::read(path).unwrap_err();
        assert!(missing.contains("sluice catalog build"), "{missing}");
        fs::create_dir(path.join("data")).unwrap();
        let read = Folder::read(path).unwrap();
        assert_eq!(read.destination_bytes, "https://x.example/".len());
        fs::create_dir(path.join("data/catalog")).unwrap();
        fs::write(path.join("data/catalog/10.snapshot"), "").unwrap();
        fs::write(path.join("data/catalog/9.snapshot"), "").unwrap();
        assert_eq!(read.versions().unwrap(), [9, 10]);
        read.make_current(9).unwrap();
        assert!(read.snapshot().unwrap().ends_with("catalog/9.snapshot"));
        assert_eq!(
            (&*read.host, &*read.slugs),
            ("go.x.example", &vec![*b"AAAA0000", *b"BBBB1111"])
        );
        fs::write(path.join("links.csv"), "affiliate,slug\na,short\n").unwrap();
        assert!(Folder::read(path).unwrap_err().contains("8 bytes"));
    }
}
