//! `loadtest links`: a catalog of many links, for measuring what their number costs.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// The redirect host of the links.
const HOST: &str = "go.links.example";
const OFFERS: u64 = 100;
const AFFILIATES: u64 = 1000;
/// Affiliates take every tenth offer.
const OFFERS_APART: u64 = 10;
/// 2^40 slugs of eight characters out of 32.
const SLUG_BITS: u32 = 40;
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyzACDEFGHJ";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many links
    #[arg(long, default_value_t = 10_000_000)]
    count: u64,
    /// The same seed makes the same links
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder to write catalog.toml and links.csv to
    #[arg(long)]
    into: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let count_max = 1 << SLUG_BITS;
    if arguments.count > count_max {
        return Err(format!("--count: at most {count_max} slugs of eight characters").into());
    }
    let written = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let folder = &arguments.into;
    fs::create_dir_all(folder).map_err(|error| written(folder, error))?;
    let catalog = folder.join("catalog.toml");
    fs::write(&catalog, catalog_text()).map_err(|error| written(&catalog, error))?;
    let links = folder.join("links.csv");
    write_links(&links, arguments).map_err(|error| written(&links, error))?;
    println!("wrote {} and {}", catalog.display(), links.display());
    Ok(())
}

fn catalog_text() -> String {
    let mut text = format!(
        "# A catalog of many links, written by loadtest: they stand in links.csv.\n\
         \n\
         [network]\n\
         currency = \"USD\"\n\
         \n\
         [domain.\"{HOST}\"]\n\
         \n\
         [advertiser.market]\n"
    );
    let expect = "a string takes everything";
    for offer in 0..OFFERS {
        write!(
            text,
            "\n\
             [offer.offer-{offer}]\n\
             advertiser = \"market\"\n\
             to = \"https://shop.links.example/offer/{offer}?aff={{affiliate}}\"\n\
             goal.sale = {{ revenue = \"10 %\", payout = \"7 %\" }}\n"
        )
        .expect(expect);
    }
    for affiliate in 0..AFFILIATES {
        let offers: Vec<String> = (0..OFFERS / OFFERS_APART)
            .map(|nth| format!("\"offer-{}\"", offer_of(affiliate, nth)))
            .collect();
        let offers = offers.join(", ");
        write!(
            text,
            "\n[affiliate.affiliate-{affiliate}]\noffers = [{offers}]\n"
        )
        .expect(expect);
    }
    text
}

/// One of the offers that an affiliate is approved for.
fn offer_of(affiliate: u64, nth: u64) -> u64 {
    (affiliate + nth * OFFERS_APART) % OFFERS
}

fn write_links(path: &Path, arguments: &Arguments) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    writeln!(out, "slug,affiliate,offer")?;
    let mut random = fastrand::Rng::with_seed(arguments.seed);
    for index in 0..arguments.count {
        let affiliate = random.u64(..AFFILIATES);
        let offer = offer_of(affiliate, random.u64(..OFFERS / OFFERS_APART));
        let slug = slug(arguments.seed, index);
        writeln!(out, "{slug},affiliate-{affiliate},offer-{offer}")?;
    }
    out.into_inner()?.sync_all()
}

/// Eight characters that look random, another eight for every index of a seed: each step can be undone.
pub(crate) fn slug(seed: u64, index: u64) -> String {
    let mask = (1 << SLUG_BITS) - 1;
    let mut bits = (index ^ seed) & mask;
    for odd in [0x9e37_79b9_7f4a_7c15_u64, 0xbf58_476d_1ce4_e5b9] {
        bits = bits.wrapping_mul(odd) & mask;
        bits ^= bits >> (SLUG_BITS / 2);
    }
    (0..SLUG_BITS / 5)
        .map(|at| LETTERS[(bits >> (at * 5)) as usize % LETTERS.len()] as char)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn slugs_are_eight_characters_and_unique() {
        let slugs: BTreeSet<String> = (0..100_000).map(|index| slug(1, index)).collect();
        assert_eq!(slugs.len(), 100_000);
        assert!(slugs.iter().all(|slug| slug.len() == 8));
    }
}
