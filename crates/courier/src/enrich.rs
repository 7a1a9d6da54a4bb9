//! What of a client's address may leave the machine: a truncated one, and a keyed hash that means a person for a month.
//!
//! Months begin with the days that reports count by, in the network's time zone: somebody who comes twice on a day is one
//! visitor of it, also on the last of a month. Of an IPv6 address the first 64 bits count: a person's devices choose the
//! others as they like, and some choose new ones for every connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use domain::event::{Click, Consent, Postback};
use hmac::{Hmac, KeyInit, Mac};
use jiff::tz::TimeZone;
use sha2::Sha256;

/// Every zone's months begin at a multiple of it.
const QUARTER_HOUR_MS: u64 = 900_000;

/// What is known where a courier runs. The whole address is dropped whatever it says.
#[derive(Clone)]
pub struct Enrich {
    /// The installation's master key for `visitor`.
    pub visitor_key: [u8; 32],
    /// Keep the address cut to /24 (IPv4) or /48 (IPv6) as `network`; otherwise nothing of it.
    pub truncate: bool,
    /// The network's time zone, by whose months the key of `visitor` changes; UTC where none is known.
    pub zone: Option<TimeZone>,
    /// The first 64 bits of the identity of the `catalog.lock` whose numbers records must have; 0 where none is known yet.
    pub catalog_lock: u64,
}

impl std::fmt::Debug for Enrich {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrich")
            .field("truncate", &self.truncate)
            .field("zone", &self.zone)
            .field("catalog_lock", &self.catalog_lock)
            .finish_non_exhaustive()
    }
}

/// Enriches events one after another; keeps the key of the month it last needed.
#[derive(Debug)]
pub(crate) struct Enricher {
    enrich: Enrich,
    month: Month,
}

/// The key of a month, ready to hash with: half of what a hash costs is taking in its key.
#[derive(Debug)]
struct Month {
    /// The quarter of an hour that was asked for last, since 1970.
    quarter: u64,
    number: u32,
    mac: Hmac<Sha256>,
}

impl Enricher {
    pub(crate) fn new(enrich: Enrich) -> Self {
        Self {
            enrich,
            month: Month {
                quarter: u64::MAX,
                number: 0,
                mac: keyed(&[0; 32]),
            },
        }
    }

    /// The catalog's identity here, where a record has the numbers of another one.
    pub(crate) fn other_catalog(&self, found: u64) -> Option<u64> {
        let own = self.enrich.catalog_lock;
        (own != 0 && found != 0 && found != own).then_some(own)
    }

    pub(crate) fn click(&mut self, click: &mut Click, time_ms: u64, address: &[u8]) {
        let address = parse(address);
        click.network = self.network(address);
        click.visitor = match address {
            Some(address) if click.consent() != Consent::None => {
                self.visitor(time_ms, address, &click.user_agent)
            }
            _ => 0,
        };
    }

    pub(crate) fn postback(&self, postback: &mut Postback, address: &[u8]) {
        postback.network = self.network(parse(address));
    }

    fn network(&self, address: Option<IpAddr>) -> String {
        match address {
            Some(address) if self.enrich.truncate => truncated(address),
            _ => String::new(),
        }
    }

    /// Never 0, which means nobody.
    fn visitor(&mut self, time_ms: u64, address: IpAddr, user_agent: &str) -> u64 {
        let mac = self.keyed(time_ms);
        let hash = match address {
            IpAddr::V4(address) => hash(mac, &[&[4], &address.octets(), user_agent.as_bytes()]),
            IpAddr::V6(address) => {
                let network = &address.octets()[..8];
                hash(mac, &[&[6], network, user_agent.as_bytes()])
            }
        };
        hash[..8]
            .iter()
            .fold(0, |n, b| n << 8 | u64::from(*b))
            .max(1)
    }

    /// The key of a time's month, to hash with.
    fn keyed(&mut self, time_ms: u64) -> Hmac<Sha256> {
        let quarter = time_ms / QUARTER_HOUR_MS;
        if quarter != self.month.quarter {
            let number = month(self.enrich.zone.as_ref().unwrap_or(&TimeZone::UTC), time_ms);
            if number != self.month.number {
                let name = format!("{number:06}");
                let key = hash(
                    keyed(&self.enrich.visitor_key),
                    &[b"visitor", name.as_bytes()],
                );
                (self.month.number, self.month.mac) = (number, keyed(&key));
            }
            self.month.quarter = quarter;
        }
        self.month.mac.clone()
    }
}

/// `None` for anything but 4 or 16 bytes; an IPv4 address in IPv6 clothes is an IPv4 address.
fn parse(address: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(address) {
        return Some(Ipv4Addr::from(bytes).into());
    }
    let bytes = <[u8; 16]>::try_from(address).ok()?;
    Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
}

fn truncated(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

/// The month of a zone as YYYYMM.
fn month(zone: &TimeZone, time_ms: u64) -> u32 {
    let timestamp = i64::try_from(time_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .unwrap_or(jiff::Timestamp::MAX);
    let date = zone.to_datetime(timestamp);
    u32::from(date.year().unsigned_abs()) * 100 + u32::from(date.month().unsigned_abs())
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn hash(mut mac: Hmac<Sha256>, parts: &[&[u8]]) -> [u8; 32] {
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-31T23:59:59.999Z
    const JANUARY_MS: u64 = 1_769_903_999_999;

    fn enricher(truncate: bool) -> Enricher {
        Enricher::new(Enrich {
            visitor_key: [5; 32],
            truncate,
            zone: None,
            catalog_lock: 0,
        })
    }

    fn visitor(time_ms: u64, address: &[u8], user_agent: &str, consent: Consent) -> u64 {
        let mut click = Click {
            user_agent: user_agent.to_owned(),
            ..Click::default()
        };
        click.set_consent(consent);
        enricher(true).click(&mut click, time_ms, address);
        click.visitor
    }

    #[test]
    fn a_visitor_is_somebody_for_a_month() {
        let somebody = visitor(JANUARY_MS, &[203, 0, 113, 9], "a", Consent::All);
        assert_eq!(somebody, 0xd784_815d_1da3_bd58, "golden");
        for (why, same, other) in [
            (
                "the same month",
                true,
                visitor(
                    JANUARY_MS - 86_400_000,
                    &[203, 0, 113, 9],
                    "a",
                    Consent::Token,
                ),
            ),
            (
                "mapped into IPv6",
                true,
                visitor(
                    JANUARY_MS,
                    &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 203, 0, 113, 9],
                    "a",
                    Consent::All,
                ),
            ),
            (
                "the next month",
                false,
                visitor(JANUARY_MS + 1, &[203, 0, 113, 9], "a", Consent::All),
            ),
            (
                "another address",
                false,
                visitor(JANUARY_MS, &[203, 0, 113, 8], "a", Consent::All),
            ),
            (
                "another browser",
                false,
                visitor(JANUARY_MS, &[203, 0, 113, 9], "b", Consent::All),
            ),
        ] {
            assert_eq!(somebody == other, same, "{why}");
            assert_ne!(other, 0, "{why}");
        }
        assert_eq!(
            visitor(JANUARY_MS, &[203, 0, 113, 9], "a", Consent::None),
            0
        );
        assert_eq!(visitor(JANUARY_MS, &[], "a", Consent::All), 0);
    }

    #[test]
    fn one_enricher_says_the_same_as_a_new_one_for_each() {
        let mut one = enricher(true);
        let days = [0, 1, 40, 40, 0, 31, 32].map(|day| JANUARY_MS - 5 + day * 86_400_000);
        for time_ms in days.into_iter().flat_map(|time_ms| [time_ms, time_ms + 10]) {
            let mut click = Click::default();
            click.set_consent(Consent::All);
            one.click(&mut click, time_ms, &[203, 0, 113, 9]);
            let alone = visitor(time_ms, &[203, 0, 113, 9], "", Consent::All);
            assert_eq!(click.visitor, alone, "{time_ms}");
        }
    }

    #[test]
    fn a_person_is_one_visitor_on_the_last_day_of_a_month_wherever_it_ends() {
        const AUCKLAND: &str = "NZST-12NZDT,M9.5.0,M4.1.0/3";
        const NEW_YORK: &str = "EST5EDT,M3.2.0,M11.1.0";
        let day = |zone: &str, time: &str| {
            let mut enricher = Enricher::new(Enrich {
                visitor_key: [5; 32],
                truncate: true,
                zone: Some(TimeZone::posix(zone).expect("a zone's rules")),
                catalog_lock: 0,
            });
            let time: jiff::Timestamp = time.parse().expect("a time");
            let mut click = Click::default();
            click.set_consent(Consent::All);
            let time_ms = u64::try_from(time.as_millisecond()).expect("after 1970");
            enricher.click(&mut click, time_ms, &[203, 0, 113, 9]);
            click.visitor
        };
        for (zone, first, second, is_one) in [
            (
                NEW_YORK,
                "2026-10-31T23:59:40Z",
                "2026-11-01T00:01:00Z",
                true,
            ),
            (
                NEW_YORK,
                "2026-10-31T04:00:00Z",
                "2026-11-01T03:59:59Z",
                true,
            ),
            (
                NEW_YORK,
                "2026-11-01T03:59:59Z",
                "2026-11-01T04:00:00Z",
                false,
            ),
            (
                AUCKLAND,
                "2026-10-31T23:59:40Z",
                "2026-11-01T00:01:00Z",
                true,
            ),
            (
                AUCKLAND,
                "2026-10-31T10:59:59Z",
                "2026-10-31T11:00:00Z",
                false,
            ),
            (
                "UTC0",
                "2026-10-31T23:59:40Z",
                "2026-11-01T00:01:00Z",
                false,
            ),
        ] {
            assert_eq!(
                day(zone, first) == day(zone, second),
                is_one,
                "{zone} {first}"
            );
        }
    }

    #[test]
    fn the_privacy_addresses_of_one_ipv6_network_are_one_visitor() {
        let of = |address: &str| {
            let address: Ipv6Addr = address.parse().expect("an address");
            visitor(JANUARY_MS, &address.octets(), "a", Consent::All)
        };
        let one = of("2001:db8:1:2:21b:63ff:fe01:2");
        for same in ["2001:db8:1:2::9", "2001:db8:1:2:ffff:ffff:ffff:ffff"] {
            assert_eq!(of(same), one, "{same}");
        }
        assert_ne!(of("2001:db8:1:3:21b:63ff:fe01:2"), one);
        // The first 8 bytes of the one are the whole of the other, and still they are two.
        assert_ne!(
            of("cb00:7109::"),
            visitor(JANUARY_MS, &[203, 0, 113, 9], "a", Consent::All)
        );
    }

    #[test]
    fn networks() {
        let v6 = "2001:db8:1:2::9".parse::<Ipv6Addr>().expect("an address");
        for (address, expected) in [
            (&[203, 0, 113, 9][..], "203.0.113.0/24"),
            (&v6.octets(), "2001:db8:1::/48"),
            (&[], ""),
            (&[1, 2, 3], ""),
        ] {
            let mut postback = Postback::default();
            enricher(true).postback(&mut postback, address);
            assert_eq!(postback.network, expected);
            enricher(false).postback(&mut postback, address);
            assert_eq!(postback.network, "");
        }
    }

    #[test]
    fn months() {
        let zone = &TimeZone::UTC;
        assert_eq!(month(zone, 0), 197_001);
        assert_eq!(month(zone, JANUARY_MS), 202_601);
        assert_eq!(month(zone, JANUARY_MS + 1), 202_602);
    }
}
