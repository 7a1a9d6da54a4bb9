//! Who comes, and to what: the audit's own catalog, and one visit for each number. A visit is a function of seed and number
//! alone, so that what was sent is known afterwards without having been written down.
//!
//! Shares are those of real clicks of a mobile network, rounded: few offers get most clicks, affiliates are spread more evenly,
//! nine visitors of ten are seen once in an hour, and one click of eight repeats one of the last seconds.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::measure::zipf::Zipf;
use crate::visitor;

pub(super) const HOST: &str = "go.northpeak.example";

/// The parameter of every destination that carries the click token.
pub(super) const CLICK_PARAM: &str = "npk";

/// Days begin here at half past six of UTC's evening, all year round.
const ZONE: &str = "Asia/Kolkata";
pub(super) const ZONE_AHEAD_MS: u64 = (5 * 60 + 30) * 60 * 1000;

/// Each with the file of its secret and its currency.
pub(super) const ADVERTISERS: [(&str, &str); 2] = [("northpeak", "USD"), ("seacoast", "EUR")];

const OFFERS: usize = 24;
const AFFILIATES: usize = 40;
const LINKS: usize = 12;
const VISITORS: usize = 60_000;

/// The affiliate that is approved for no offer.
pub(super) const OUTSIDER: &str = "outsider";

/// The affiliate of the click that follows everything.
pub(super) const LAST: &str = "last";

/// How far back a repeated click may lie, in clicks.
const REPEAT_WITHIN: u64 = 1_500;

/// Of a long sub id: so long that full disks are met within seconds.
const LONG_SUB_CHARS: usize = 250;

/// What a visit is, for Sluice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A person, or a tool that says so: counts.
    Click,
    Bot,
    Head,
    Prefetch,
    /// The forwarder names no address.
    Nameless,
    /// The visitor wants to be nobody.
    Refusing,
    /// Nobody knows the slug.
    Unknown,
    /// The affiliate is not approved for the offer.
    Outsider,
}

/// In thousandths; the rest are clicks.
const SHARES: [(u64, Kind); 7] = [
    (20, Kind::Bot),
    (10, Kind::Head),
    (10, Kind::Prefetch),
    (5, Kind::Nameless),
    (5, Kind::Refusing),
    (5, Kind::Unknown),
    (5, Kind::Outsider),
];

impl Kind {
    /// The status of the answer that is right.
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Prefetch => 503,
            Self::Unknown | Self::Outsider => 404,
            _ => 302,
        }
    }

    /// Whether a right answer carries a token, as long as it is recorded.
    pub(super) fn has_token(self) -> bool {
        matches!(self, Self::Click | Self::Bot | Self::Nameless)
    }
}

/// What is named in the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) offer: usize,
    pub(super) affiliate: usize,
    /// The link that fixes both, where the address is a link's.
    pub(super) link: Option<usize>,
}

/// One visit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Visit {
    pub(super) kind: Kind,
    pub(super) named: Named,
    /// One number for each pair of address (the network, with IPv6) and user agent.
    pub(super) visitor: usize,
    pub(super) user_agent: String,
    /// As `X-Forwarded-For` has it.
    pub(super) forwarded: String,
    /// What of the address may leave the machine.
    pub(super) network: String,
    pub(super) subs: Vec<String>,
    pub(super) ext: String,
    /// What the advertiser says afterwards, where it says anything.
    pub(super) sale: Option<Sale>,
}

/// What the advertiser says of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sale {
    /// Hundredths of the advertiser's currency.
    pub(super) cents: i64,
    /// The order is taken back later.
    pub(super) reversed: bool,
}

/// What a goal is worth, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Worth {
    pub(super) goal: &'static str,
    pub(super) currency: &'static str,
    pub(super) amount: i64,
    pub(super) revenue: i64,
    pub(super) payout: i64,
}

pub(super) struct Visits {
    seed: u64,
    offers: Zipf,
    affiliates: Zipf,
    visitors: Zipf,
    /// One sale for so many clicks.
    sale_every: u64,
}

impl Visits {
    pub(super) fn new(seed: u64, sale_every: u64) -> Self {
        Self {
            seed,
            offers: Zipf::new(OFFERS, 0.9),
            affiliates: Zipf::new(AFFILIATES, 0.5),
            visitors: Zipf::new(VISITORS, 0.4),
            sale_every,
        }
    }

    fn random(&self, number: u64) -> fastrand::Rng {
        // Neighbouring seeds begin alike: mixed once more, they do not.
        let mut random =
            fastrand::Rng::with_seed(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        fastrand::Rng::with_seed(random.u64(..))
    }

    /// Who clicks what, where it repeats nothing.
    fn pair(&self, random: &mut fastrand::Rng) -> (Named, usize) {
        let link = (random.u64(..10) < 3).then(|| random.usize(..LINKS));
        let named = match link {
            Some(link) => link_target(link),
            None => Named {
                offer: self.offers.draw(random),
                affiliate: self.affiliates.draw(random),
                link: None,
            },
        };
        (named, self.visitors.draw(random))
    }

    /// The number of a visit from its `ext`.
    pub(super) fn number(&self, ext: &str) -> Option<u64> {
        let (seed, number) = ext.split_once('-')?;
        (seed == format!("{:x}", self.seed)).then(|| number.parse().ok())?
    }

    pub(super) fn visit(&self, number: u64) -> Visit {
        let mut random = self.random(number);
        let (mut named, mut visitor) = self.pair(&mut random);
        if number > 0 && random.u64(..8) == 0 {
            let back = 1 + random.u64(..REPEAT_WITHIN.min(number));
            (named, visitor) = self.pair(&mut self.random(number - back));
        }
        let mut at = random.u64(..1000);
        let kind = SHARES
            .iter()
            .find(|(share, _)| {
                let is_it = at < *share;
                at = at.saturating_sub(*share);
                is_it
            })
            .map_or(Kind::Click, |(_, kind)| *kind);
        if kind == Kind::Outsider {
            named.link = None;
        }
        let mut subs = Vec::new();
        let shape = random.u64(..10);
        if shape < 7 {
            subs.push(format!("pub{}", random.u64(..300)));
        }
        if shape < 4 {
            subs.extend((0..4).map(|_| letters(&mut random, LONG_SUB_CHARS)));
        }
        let (forwarded, network) = match kind {
            Kind::Nameless => ("unknown".to_owned(), String::new()),
            _ => address(visitor, &mut random),
        };
        let sale = (kind == Kind::Click && random.u64(..self.sale_every) == 0).then(|| Sale {
            cents: random.i64(100..40_000),
            reversed: random.u64(..8) == 0,
        });
        Visit {
            kind,
            named,
            visitor,
            user_agent: agent(kind, visitor),
            forwarded,
            network,
            subs,
            ext: format!("{:x}-{number}", self.seed),
            sale,
        }
    }
}

impl Visit {
    /// Path and query.
    pub(super) fn target(&self) -> String {
        let Named {
            offer,
            affiliate,
            link,
        } = self.named;
        let mut target = match (self.kind, link) {
            (Kind::Unknown, _) => "/gone?".to_owned(),
            (_, Some(link)) => format!("/{}?", link_name(link)),
            (Kind::Outsider, None) => format!("/c?offer={}&aff={OUTSIDER}&", offer_name(offer)),
            (_, None) => format!(
                "/c?offer={}&aff={}&",
                offer_name(offer),
                affiliate_name(affiliate)
            ),
        };
        for (at, sub) in (1..).zip(&self.subs) {
            let _ = write!(target, "sub{at}={sub}&");
        }
        if self.kind == Kind::Refusing {
            target.push_str("cons=none&");
        }
        target + "ext=" + &self.ext
    }
}

impl Sale {
    /// What it is worth on this offer.
    pub(super) fn worth(self, offer: usize) -> Worth {
        let (_, currency) = ADVERTISERS[offer % ADVERTISERS.len()];
        let amount = self.cents * 10_000;
        // As the catalog below has it.
        let (goal, revenue, payout) = match offer % 3 {
            0 => ("signup", 4_000_000, 3_000_000),
            _ => ("sale", amount * 12 / 100, amount * 8 / 100),
        };
        Worth {
            goal,
            currency,
            amount,
            revenue,
            payout,
        }
    }
}

/// The catalog that visits are of.
pub(super) fn catalog() -> String {
    let mut text =
        format!("[network]\ntimezone = \"{ZONE}\"\ncurrency = \"USD\"\n[domain.\"{HOST}\"]\n");
    let mut add = |part: String| text.push_str(&part);
    for (name, currency) in ADVERTISERS {
        add(format!(
            "[advertiser.{name}]\ncurrency = \"{currency}\"\npostback = {{ secret = \"file:{name}.secret\" }}\n"
        ));
    }
    let all: Vec<String> = (0..OFFERS)
        .map(|offer| format!("\"{}\"", offer_name(offer)))
        .collect();
    for offer in 0..OFFERS {
        let (name, (advertiser, currency)) =
            (offer_name(offer), ADVERTISERS[offer % ADVERTISERS.len()]);
        let goal = match offer % 3 {
            0 => format!(
                "goal.signup = {{ revenue = \"4.00 {currency}\", payout = \"3.00 {currency}\" }}"
            ),
            _ => "goal.sale = { revenue = \"12 %\", payout = \"8 %\" }".to_owned(),
        };
        add(format!(
            "[offer.{name}]\nadvertiser = \"{advertiser}\"\nclick_param = \"{CLICK_PARAM}\"\n\
             to = \"https://shop.{advertiser}.example/{name}?aff={{affiliate}}\"\n{goal}\n"
        ));
    }
    let affiliates = (0..AFFILIATES).map(affiliate_name);
    for name in affiliates.chain([LAST.to_owned()]) {
        add(format!(
            "[affiliate.{name}]\noffers = [{}]\n",
            all.join(", ")
        ));
    }
    add(format!("[affiliate.{OUTSIDER}]\n"));
    for link in 0..LINKS {
        let to = link_target(link);
        add(format!(
            "[link.{}]\naffiliate = \"{}\"\noffer = \"{}\"\n",
            link_name(link),
            affiliate_name(to.affiliate),
            offer_name(to.offer)
        ));
    }
    text
}

pub(super) fn offer_name(offer: usize) -> String {
    format!("gear-{offer}")
}

pub(super) fn affiliate_name(affiliate: usize) -> String {
    format!("blog-{affiliate}")
}

pub(super) fn link_name(link: usize) -> String {
    format!("pick-{link}")
}

fn link_target(link: usize) -> Named {
    Named {
        offer: link * 5 % OFFERS,
        affiliate: link * 7 % AFFILIATES,
        link: Some(link),
    }
}

/// Of every ten, two share an address, as in a household.
fn house(visitor: usize) -> usize {
    match visitor % 10 {
        1 => visitor - 1,
        _ => visitor,
    }
}

fn agent(kind: Kind, visitor: usize) -> String {
    let number = u32::try_from(visitor).expect("some ten thousands");
    match kind {
        Kind::Bot => format!("Mozilla/5.0 (compatible; Trailbot/{}.0)", number % 5),
        // One of fifty is no browser; two of a household never have the same.
        _ if visitor % 50 == 7 => format!("curl/8.{}", number % 10),
        _ => visitor::user_agent(u32::from(visitor.is_multiple_of(17)), number % 30),
    }
}

/// What a forwarder writes of a visitor, and the network.
fn address(visitor: usize, random: &mut fastrand::Rng) -> (String, String) {
    let house = u32::try_from(house(visitor)).expect("some ten thousands");
    if house.is_multiple_of(3) {
        // 61 apart, so that a network has four of them.
        let first = Ipv4Addr::new(100, 64, 0, 0).to_bits();
        let address = Ipv4Addr::from_bits(first + house * 61);
        let [a, b, c, _] = address.octets();
        let written = match random.u64(..20) {
            // What stands to the left is the visitor's invention.
            0 => format!("198.51.100.7, {address}"),
            _ => address.to_string(),
        };
        return (written, format!("{}/24", Ipv4Addr::new(a, b, c, 0)));
    }
    // A person's devices choose the last 64 bits as they like.
    let (site, home) = ((house >> 4) as u16, (house & 15) as u16);
    let own: [u16; 4] = std::array::from_fn(|_| random.u16(1..));
    let [e, f, g, h] = own;
    let address = Ipv6Addr::new(0x2001, 0xdb8, site, home, e, f, g, h);
    let written = match random.u64(..5) {
        0 => format!("[{address}]:4711"),
        _ => address.to_string(),
    };
    let network = Ipv6Addr::new(0x2001, 0xdb8, site, 0, 0, 0, 0, 0);
    (written, format!("{network}/48"))
}

/// Letters that do not compress.
fn letters(random: &mut fastrand::Rng, count: usize) -> String {
    (0..count).map(|_| random.alphanumeric()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn the_same_number_is_the_same_visit_and_says_its_number() {
        let visits = Visits::new(7, 20);
        let visit = visits.visit(41);
        assert_eq!(visit, Visits::new(7, 20).visit(41));
        assert_eq!(visits.number(&visit.ext), Some(41));
        assert_eq!(Visits::new(8, 20).number(&visit.ext), None);
    }

    #[test]
    fn visitors_networks_and_kinds_have_their_shares() {
        let visits = Visits::new(1, 20);
        let all: Vec<Visit> = (0..20_000).map(|number| visits.visit(number)).collect();
        let networks: BTreeSet<&str> = all.iter().map(|visit| &*visit.network).collect();
        assert!(networks.len() > 1_000, "{}", networks.len());
        assert!(networks.iter().any(|network| network.ends_with("/48")));
        assert!(networks.iter().any(|network| network.ends_with("/24")));
        let of = |kind| all.iter().filter(|visit| visit.kind == kind).count();
        for (share, kind) in SHARES {
            let found = of(kind) as u64;
            assert!(
                (share * 10..share * 40).contains(&found),
                "{kind:?} {found}"
            );
        }
        let mut groups: BTreeMap<_, u32> = BTreeMap::new();
        for visit in &all {
            let Named {
                offer, affiliate, ..
            } = visit.named;
            *groups.entry((visit.visitor, offer, affiliate)).or_default() += 1;
        }
        let repeated: u32 = groups.values().map(|count| count - 1).sum();
        assert!((1_800..4_500).contains(&repeated), "{repeated}");
        let sales = all.iter().filter(|visit| visit.sale.is_some()).count();
        assert!((700..1_300).contains(&sales), "{sales}");
    }

    #[test]
    fn no_two_visitors_are_one_by_address_and_agent() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut seen = BTreeSet::new();
        for visitor in 0..VISITORS {
            let (written, network) = address(visitor, &mut random);
            let key = match written.rsplit(", ").next() {
                Some(v4) if !v4.contains(':') => v4.to_owned(),
                _ => format!("{network} {}", house(visitor) & 15),
            };
            assert!(seen.insert((key, agent(Kind::Click, visitor))), "{visitor}");
        }
    }
}
