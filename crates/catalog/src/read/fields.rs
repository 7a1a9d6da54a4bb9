//! The fields of each table, and what their values may be.

use domain::Currency;
use jiff::tz::TimeZoneDatabase;

use text::nearest;

use crate::{destination::Mistake, lock::Kind};

/// What a table may hold.
pub(super) struct Fields {
    /// Served by this version.
    pub(super) now: &'static [&'static str],
    /// In the shape, not served yet: refused, never ignored.
    pub(super) later: &'static [&'static str],
}

pub(super) const ROOT: Fields = Fields {
    now: &[
        "network",
        "domain",
        "advertiser",
        "offer",
        "affiliate",
        "link",
    ],
    later: &["creative", "group"],
};
pub(super) const NETWORK: Fields = Fields {
    now: &["timezone", "currency", "unique"],
    later: &[
        "consent",
        "click_param",
        "window",
        "credit",
        "hold",
        "repeat",
        "speaks",
        "browser",
        "compete",
    ],
};
pub(super) const DOMAIN: Fields = Fields {
    now: &["fallback", "was"],
    later: &["same_site", "scheme"],
};
pub(super) const ADVERTISER: Fields = Fields {
    now: &["name", "currency", "postback", "was"],
    later: &[
        "speaks",
        "browser",
        "compete",
        "click_param",
        "window",
        "credit",
        "hold",
        "repeat",
        "consent",
    ],
};
pub(super) const POSTBACK: Fields = Fields {
    now: &["secret"],
    later: &["from"],
};
pub(super) const OFFER: Fields = Fields {
    now: &[
        "advertiser",
        "to",
        "click_param",
        "window",
        "credit",
        "goal",
        "was",
    ],
    later: &[
        "access",
        "deeplinks",
        "allow",
        "fallback",
        "hold",
        "repeat",
        "page",
        "cap",
        "route",
        "compete",
        "browser",
        "consent",
        "weight",
    ],
};
pub(super) const GOAL: Fields = Fields {
    now: &["revenue", "payout", "was"],
    later: &["tiers", "tier_on", "hold", "repeat", "window"],
};
pub(super) const AFFILIATE: Fields = Fields {
    now: &["name", "offers", "was"],
    later: &["kind", "sites", "coupons", "postback", "deal"],
};
pub(super) const LINK: Fields = Fields {
    now: &[
        "domain",
        "affiliate",
        "offer",
        "was",
        "sub1",
        "sub2",
        "sub3",
        "sub4",
        "sub5",
        "sub6",
        "sub7",
        "sub8",
        "sub9",
        "sub10",
    ],
    later: &["creative", "source", "page", "coupon", "group"],
};
pub(crate) const SUB_KEYS: [&str; crate::SUBS] = [
    "sub1", "sub2", "sub3", "sub4", "sub5", "sub6", "sub7", "sub8", "sub9", "sub10",
];

/// Longest name: it stands in addresses, tables and the lock.
const NAME_BYTES_MAX: usize = 100;
/// Longest title: one cell of a report.
pub(super) const TITLE_BYTES_MAX: usize = 200;
/// Longest sub id, as for a visitor's own.
pub(crate) const SUB_BYTES_MAX: usize = 255;
/// Longest parameter name.
const CLICK_PARAM_BYTES_MAX: usize = 40;
/// Longest window: browsers keep a cookie no longer.
const WINDOW_MS_MAX: u64 = 400 * 86_400_000;

/// First segments of paths that are the edge's own for ever.
const RESERVED: [&str; 10] = [
    "c",
    "postback",
    "event",
    "pixel.gif",
    "s.js",
    "i.gif",
    "robots.txt",
    "favicon.ico",
    ".well-known",
    "_",
];

/// Parameters that browsers and privacy tools take out of addresses, lower case.
const STRIPPED: [&str; 49] = [
    "click_id",
    "clickid",
    "gclid",
    "gclsrc",
    "dclid",
    "gbraid",
    "wbraid",
    "gad_source",
    "gad_campaignid",
    "fbclid",
    "fb_action_ids",
    "fb_action_types",
    "fb_source",
    "fb_ref",
    "msclkid",
    "twclid",
    "ttclid",
    "yclid",
    "ysclid",
    "ymclid",
    "igshid",
    "igsh",
    "li_fat_id",
    "epik",
    "sccid",
    "rdt_cid",
    "mc_cid",
    "mc_eid",
    "mkt_tok",
    "_openstat",
    "vero_id",
    "vero_conv",
    "wickedid",
    "oly_anon_id",
    "oly_enc_id",
    "__s",
    "s_cid",
    "rb_clickid",
    "ml_subscriber",
    "ml_subscriber_hash",
    "unicorn_click_id",
    "irclickid",
    "irgwc",
    "srsltid",
    "cjevent",
    "_hsenc",
    "_hsmi",
    "hsctatracking",
    "__hssc",
];

/// What is wrong with an entry's name.
pub(crate) fn name_mistake(kind: Kind, name: &str) -> Option<String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Some(format!("a name has 1 to {NAME_BYTES_MAX} bytes"));
    }
    if kind == Kind::Domain {
        return host_mistake(name);
    }
    let link = kind == Kind::Link;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let allowed = |b: u8| plain(b) || link && (b.is_ascii_uppercase() || b == b'/');
    if !name.bytes().all(allowed) {
        return Some(
            if link {
                "a slug is made of a-z, A-Z, 0-9, \".\", \"_\", \"-\" and \"/\""
            } else {
                "a name is made of a-z, 0-9, \".\", \"_\" and \"-\""
            }
            .to_owned(),
        );
    }
    match kind {
        Kind::Link => {
            let mut segments = name.split('/');
            if segments
                .clone()
                .any(|segment| matches!(segment, "" | "." | ".."))
            {
                return Some("a slug has no empty, \".\" or \"..\" segment".to_owned());
            }
            let first = segments.next().unwrap_or_default();
            // In any case: the edge reads `/C` as `/c`.
            RESERVED
                .iter()
                .any(|reserved| reserved.eq_ignore_ascii_case(first))
                .then(|| format!("\"/{first}\" is reserved"))
        }
        _ => None,
    }
}

/// What is wrong with a host: browsers send it in small letters, as ASCII, without a dot at its end.
fn host_mistake(name: &str) -> Option<String> {
    let (_, rest) = name.split_once("://").unwrap_or(("", name));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let url = url::Url::parse(&format!("http://{authority}/")).ok();
    let host = url.as_ref().and_then(|url| url.host_str());
    let sent = host.unwrap_or_default().trim_end_matches('.');
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    if sent.is_empty() || sent.len() > NAME_BYTES_MAX || !sent.bytes().all(plain) {
        return Some("not a host name".to_owned());
    }
    (sent != name).then(|| format!("browsers send this host as \"{sent}\": write it so"))
}

/// An IANA time zone's name.
pub(super) fn timezone(text: &str) -> Result<String, Mistake> {
    let zones = TimeZoneDatabase::bundled();
    let known = zones.get(text).ok();
    match known.as_ref().and_then(|zone| zone.iana_name()) {
        Some(name) => Ok(name.to_owned()),
        None => {
            let names: Vec<String> = zones
                .available()
                .map(|name| name.as_str().to_owned())
                .collect();
            Err((
                format!("no time zone \"{text}\""),
                nearest(text, names.iter().map(String::as_str)),
            ))
        }
    }
}

/// An ISO 4217 code.
pub(super) fn currency(text: &str) -> Result<Currency, String> {
    Currency::parse(text)
        .ok_or_else(|| format!("\"{text}\" is no currency: expected an ISO 4217 code such as USD"))
}

/// `30d`, `12h`, `15m` or `90s`, in milliseconds.
pub(super) fn window_ms(text: &str) -> Result<u64, String> {
    let expected = || {
        format!("expected a time such as \"30d\", \"12h\", \"15m\" or \"90s\", found \"{text}\"")
    };
    let unit_ms = match text.as_bytes().last() {
        Some(b's') => 1_000,
        Some(b'm') => 60_000,
        Some(b'h') => 3_600_000,
        Some(b'd') => 86_400_000,
        _ => return Err(expected()),
    };
    let number = &text[..text.len() - 1];
    if number.is_empty() || number.len() > 9 || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(expected());
    }
    let number: u64 = number.parse().map_err(|_| expected())?;
    match number.checked_mul(unit_ms) {
        Some(0) => Err("a window is longer than nothing".to_owned()),
        Some(window_ms) if window_ms <= WINDOW_MS_MAX => Ok(window_ms),
        _ => Err("a window is at most 400d: browsers keep a cookie no longer".to_owned()),
    }
}

/// The parameter that carries the token.
pub(super) fn click_param(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    if text.is_empty() || text.len() > CLICK_PARAM_BYTES_MAX || !text.bytes().all(allowed) {
        return Err(format!(
            "a parameter has 1 to {CLICK_PARAM_BYTES_MAX} letters, digits, \"_\", \"-\" or \".\""
        ));
    }
    let lower = text.to_ascii_lowercase();
    if STRIPPED.contains(&&*lower) || lower.starts_with("utm_") {
        return Err(format!(
            "browsers strip \"{text}\" from addresses: choose a name of the shop's own"
        ));
    }
    Ok(text.to_owned())
}

/// One line of so many bytes.
pub(crate) fn short_text(text: &str, bytes_max: usize) -> Result<String, String> {
    if text.len() > bytes_max {
        Err(format!("longer than {bytes_max} bytes"))
    } else if text.chars().any(char::is_control) {
        Err("has a control character".to_owned())
    } else {
        Ok(text.to_owned())
    }
}
