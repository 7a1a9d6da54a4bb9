//! The installation's keys: made once, 0600, first on the list of what to back up.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use service::secret;
use sha2::{Digest, Sha256};

const TOKENS: &str = "tokens.key";
const VISITOR: &str = "visitor.key";

/// What the keys folder holds.
pub struct Keys {
    /// The token key file's text.
    pub tokens: String,
    /// Master key of visitor hashes.
    pub visitor: [u8; 32],
}

/// What shows that a data folder is in use: it was made with keys.
const USED: [&str; 4] = ["journal", "store.sqlite", "stream", "catalog/current"];

impl Keys {
    /// Makes the keys of a new installation, by whichever process or command comes first. Beside data that was made with other
    /// keys nothing is made: these have to come back, or be made by [`Self::make`] when a person says so.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn make_where_new(data: &Path) -> Result<(), String> {
        match Self::used(data) {
            Some(_) => Ok(()),
            None => Self::make(&data.join("keys")),
        }
    }

    /// What was made with the keys of a data folder, if there is something.
    pub fn used(data: &Path) -> Option<&'static str> {
        USED.into_iter().find(|name| data.join(name).exists())
    }

    /// What the keys are known by on other machines; says nothing of them.
    pub fn known_by(&self) -> u64 {
        let mut hash = Sha256::new_with_prefix(b"sluice keys");
        hash.update(self.visitor);
        let digest: [u8; 32] = hash.finalize().into();
        digest[..8]
            .iter()
            .fold(0, |n, byte| n << 8 | u64::from(*byte))
    }

    /// Makes the keys that are missing. Only for an installation that has recorded nothing: under new keys every token
    /// issued before is a forgery.
    ///
    /// # Errors
    /// A key cannot be made; the text names the file.
    pub fn make(folder: &Path) -> Result<(), String> {
        let mut private = DirBuilder::new();
        let made = private.recursive(true).mode(0o700).create(folder);
        made.map_err(|error| format!("{}: {}", folder.display(), text::io_error(&error)))?;
        for (name, text) in [
            (TOKENS, format!("1 {}\n", random_hex())),
            (VISITOR, format!("{}\n", random_hex())),
        ] {
            let path = folder.join(name);
            if !path.exists() {
                secret::write_private(&path, text.as_bytes()).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Reads the keys.
    ///
    /// # Errors
    /// A key is missing, cannot be understood, or others may read it; the text names the file.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let (tokens_path, visitor_path) = (folder.join(TOKENS), folder.join(VISITOR));
        let tokens = read(&tokens_path)?;
        domain::Keyring::parse(&tokens)
            .map_err(|error| format!("{}: {error}", tokens_path.display()))?;
        let visitor = domain::token::from_hex(read(&visitor_path)?.trim())
            .ok_or_else(|| format!("{}: expected 64 hexadecimal digits", visitor_path.display()))?;
        Ok(Self { tokens, visitor })
    }

    /// The seed of shards: no secret, but not to be guessed by who wants to aim at one partition.
    pub fn seed(&self) -> u64 {
        domain::shard::seed(&self.visitor)
    }
}

fn read(path: &Path) -> Result<String, String> {
    if !path.exists() {
        return Err(format!(
            "{}: missing: copy the keys folder of the installation here, or restore it from backup; for a new installation run sluice keys create",
            path.display()
        ));
    }
    let bytes = secret::read_private(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| format!("{}: is not text", path.display()))
}

/// 32 random bytes in hexadecimal digits.
pub fn random_hex() -> String {
    format!(
        "{}{}",
        journal::StreamId::random(),
        journal::StreamId::random()
    )
}
