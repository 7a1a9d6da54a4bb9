//! A click: look up, decide, mint, render, record, answer. Nothing here waits.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;

use bytes::Bytes;
use domain::event::{self, BorrowedClick, Class, Consent, ConsentSource, Label, Reason};
use domain::{ClickKey, Domain, Shard, Token};
use hyper::StatusCode;
use routing::{Decision, Params, Path, Route, Value};

use crate::answer::{self, Reply};
use crate::cookie::{self, History};
use crate::live::Live;
use crate::mend;
use crate::recorder::Recorder;
use crate::request::{self, Fields, Head, Query, Said};
use crate::settings::WhenFull;
use crate::worker::Worker;

/// A request as far as it is understood before anything is decided.
pub(crate) struct Asked<'r> {
    pub(crate) head: Head<'r>,
    pub(crate) fields: &'r Fields<'r>,
    /// The visitor's address; `None` where a forwarder named none that can be read.
    pub(crate) client: Option<IpAddr>,
    /// The domain, and whether its public side is HTTPS; `None` for a host that is not ours.
    pub(crate) domain: Option<(Domain, bool)>,
    pub(crate) class: Class,
    /// As it is kept.
    pub(crate) user_agent: Rc<str>,
    /// The path was written in another way than it is.
    pub(crate) is_mended: bool,
}

/// Answers `/{slug}` and `/c?…` of a domain.
pub(crate) fn serve(
    worker: &Worker,
    live: &Live,
    asked: &Asked<'_>,
    domain: Domain,
    secure: bool,
) -> Reply {
    let mut query = Query::of(asked.head.uri);
    if asked.is_mended {
        query.labels.push(Label::MendedLink);
    }
    let place = (domain, secure);
    let slug = match asked.head.uri.path() {
        "/c" => None,
        path => match request::slug(path) {
            Some(slug) => Some(slug),
            None => return missed(worker, live, asked, place, &query, &BAD_SLUG),
        },
    };
    let path = slug.as_deref().map_or(Path::Click, Path::Slug);
    match &routing::decide(&live.table, domain, path, &query.params) {
        decision if request::is_too_long(asked.head) => {
            refuse_long(worker, live, asked, domain, &query, decision)
        }
        Decision::Redirect(route) => send(worker, live, asked, place, route, &query),
        refused => missed(worker, live, asked, place, &query, refused),
    }
}

/// The decision about a path that is no text.
const BAD_SLUG: Decision<'static> = Decision::Refuse {
    reason: Reason::BadSlug,
    offer: None,
    affiliate: None,
    link: None,
};

fn send(
    worker: &Worker,
    live: &Live,
    asked: &Asked<'_>,
    (domain, secure): (Domain, bool),
    route: &Route<'_>,
    query: &Query<'_>,
) -> Reply {
    let clicked = Clicked {
        route,
        params: &query.params,
        domain,
        secure,
        consent: consented(&query.said, asked.fields),
    };
    redirect(worker, live, asked, &clicked, query.labels.clone())
}

/// Answers an address that leads nowhere: perhaps it leads somewhere as it was meant.
#[cold]
fn missed(
    worker: &Worker,
    live: &Live,
    asked: &Asked<'_>,
    place: (Domain, bool),
    query: &Query<'_>,
    refused: &Decision<'_>,
) -> Reply {
    let &Decision::Refuse { reason, .. } = refused else {
        unreachable!("a redirect is no miss");
    };
    let may_be_mended = matches!(
        reason,
        Reason::UnknownLink | Reason::UnknownOffer | Reason::UnknownAffiliate | Reason::BadSlug
    );
    if may_be_mended {
        for meant in mend::candidates(asked.head.uri, &query.params) {
            let query = Query::mended(&meant.query);
            let path = meant.slug.as_deref().map_or(Path::Click, Path::Slug);
            let decision = routing::decide(&live.table, place.0, path, &query.params);
            if let Decision::Redirect(route) = &decision {
                return send(worker, live, asked, place, route, &query);
            }
        }
    }
    refuse(worker, live, asked, place.0, query, refused)
}

/// 414. A known link or offer leaves a click with the reason.
#[cold]
fn refuse_long(
    worker: &Worker,
    live: &Live,
    asked: &Asked<'_>,
    domain: Domain,
    query: &Query<'_>,
    decision: &Decision<'_>,
) -> Reply {
    let (offer, affiliate, link) = match decision {
        Decision::Redirect(route) => (Some(route.offer), Some(route.affiliate), route.link),
        &Decision::Refuse {
            offer,
            affiliate,
            link,
            ..
        } => (offer, affiliate, link),
    };
    let refused = Decision::Refuse {
        reason: Reason::TargetTooLong,
        offer,
        affiliate,
        link,
    };
    record_refusal(
        worker,
        live,
        asked,
        domain,
        query,
        &refused,
        event::Decision::Refuse,
    );
    let (status, line) = request::TOO_LONG;
    answer::text(status, line).into()
}

/// Answers with the domain's fallback or an error.
fn refuse(
    worker: &Worker,
    live: &Live,
    asked: &Asked<'_>,
    domain: Domain,
    query: &Query<'_>,
    refused: &Decision<'_>,
) -> Reply {
    if let Decision::Refuse {
        reason: Reason::BadSlug,
        ..
    } = refused
    {
        unmatched(worker, asked, Reason::BadSlug, event::Decision::Refuse);
        let line = "the path holds control characters or is not UTF-8";
        return answer::text(StatusCode::BAD_REQUEST, line).into();
    }
    let fallback = live.table.fallback(domain);
    let decision = match fallback {
        _ if asked.class == Class::Speculative => event::Decision::Speculative,
        Some(_) => event::Decision::Fallback,
        None => event::Decision::Refuse,
    };
    record_refusal(worker, live, asked, domain, query, refused, decision);
    match fallback {
        _ if asked.class == Class::Speculative => answer::not_yet().into(),
        Some(fallback) => Reply::Redirect {
            location: Bytes::copy_from_slice(fallback.as_bytes()),
            cookie: None,
        },
        None => answer::not_found().into(),
    }
}

/// Records a request that is sent to no shop, as far as it named something known.
fn record_refusal(
    worker: &Worker,
    live: &Live,
    asked: &Asked<'_>,
    domain: Domain,
    query: &Query<'_>,
    refused: &Decision<'_>,
    decision: event::Decision,
) {
    let &Decision::Refuse {
        reason,
        offer,
        affiliate,
        link,
    } = refused
    else {
        return;
    };
    if offer.is_none() && link.is_none() {
        unmatched(worker, asked, reason, decision);
        return;
    }
    worker.metrics.decided(decision, reason);
    record(worker, asked, query, |click, _| {
        click.catalog_version = live.table.catalog().version;
        click.catalog_hash = live.table.catalog().hash;
        click.domain = domain.get();
        click.reason = reason;
        click.offer = offer.map_or(0, domain::Offer::get);
        click.affiliate = affiliate.map_or(0, domain::Affiliate::get);
        click.link = link.map_or(0, domain::Link::get);
        click.decision = decision;
    });
}

struct Clicked<'t> {
    route: &'t Route<'t>,
    params: &'t Params<'t>,
    domain: Domain,
    secure: bool,
    consent: (Consent, ConsentSource),
}

fn redirect(
    worker: &Worker,
    live: &Live,
    asked: &Asked<'_>,
    clicked: &Clicked<'_>,
    mut labels: Vec<Label>,
) -> Reply {
    let Clicked {
        route,
        params,
        domain,
        secure,
        consent,
    } = clicked;
    let speculative = asked.class == Class::Speculative;
    let recorder = &mut *worker.recorder.borrow_mut();
    let Some(key) = recorder.next() else {
        worker.metrics.recorded(false);
        return unrecorded(worker, speculative, clicked);
    };
    let shard = shard(recorder.seed, asked.client, key);
    // A link checker's or a preview's look at the link is no visit that a sale could come of.
    let is_visit = !matches!(asked.class, Class::Speculative | Class::Head);
    let token = (is_visit && consent.0 != Consent::None).then(|| {
        recorder.keyring.seal(&Token {
            click: key,
            target: route.target,
            shard,
        })
    });
    let history = asked
        .fields
        .cookie
        .then(|| History::read(asked.head.headers, *secure, &recorder.keyring));
    if history.as_ref().is_some_and(|history| history.bad) {
        labels.push(Label::BadCookie);
    }
    let person =
        matches!(asked.class, Class::Browser | Class::NonBrowser) && asked.fields.navigation;
    let kept = token.filter(|_| person && consent.0 == Consent::All);

    let referrer_host = asked.fields.referrer_host();
    let mut click = described(
        asked,
        key,
        shard,
        &referrer_host,
        params,
        &mut labels,
        *consent,
    );
    click.catalog_version = live.table.catalog().version;
    click.catalog_hash = live.table.catalog().hash;
    click.domain = domain.get();
    click.link = route.link.map_or(0, domain::Link::get);
    click.offer = route.offer.get();
    click.affiliate = route.affiliate.get();
    click.advertiser = route.advertiser.get();
    click.decision = if speculative {
        event::Decision::Speculative
    } else {
        event::Decision::Redirect
    };
    click.reason = match asked.class {
        Class::Speculative => Reason::Speculative,
        Class::Head => Reason::Head,
        Class::Bot => Reason::DeclaredBot,
        _ => Reason::None,
    };
    click.subs = route.subs;
    click.token_issued = token.is_some();
    click.cookie_set = kept.is_some();
    if consent.0 == Consent::All {
        click.history = history.as_ref().map_or(&[], History::opened);
    }
    worker.metrics.decided(click.decision, click.reason);
    if !append(worker, recorder, asked, &click) {
        // The disk failed between the look at the journal and the append: the token must not leave.
        return unrecorded(worker, speculative, clicked);
    }
    if speculative {
        return answer::not_yet().into();
    }
    let cookie = match kept {
        Some(token) => Some(worker.cookie(live, history.as_ref(), &token, *secure)),
        // Who says no gets rid of what was set before.
        None if consent.0 == Consent::None && history.is_some_and(|history| history.is_sent) => {
            Some(Bytes::from_static(cookie::deletion(*secure).as_bytes()))
        }
        None => None,
    };
    Reply::Redirect {
        location: worker.location(route, params, token.as_ref().map(|token| &token[..])),
        cookie,
    }
}

/// What a click gets that the journal does not take: never a token, never a cookie.
fn unrecorded(worker: &Worker, speculative: bool, clicked: &Clicked<'_>) -> Reply {
    match worker.settings.load().when_full {
        _ if speculative => answer::not_yet().into(),
        WhenFull::Redirect => Reply::Redirect {
            location: worker.location(clicked.route, clicked.params, None),
            cookie: None,
        },
        WhenFull::Refuse => answer::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "clicks cannot be recorded at the moment",
        )
        .into(),
    }
}

/// A request that names nothing known: kept whole or counted.
pub(crate) fn unmatched(
    worker: &Worker,
    asked: &Asked<'_>,
    reason: Reason,
    decision: event::Decision,
) {
    worker.metrics.decided(decision, reason);
    let domain = asked.domain.map(|(domain, _)| domain);
    if !worker
        .unmatched
        .borrow_mut()
        .keep_whole((domain, reason, asked.class))
    {
        return;
    }
    let query = Query::of(asked.head.uri);
    record(worker, asked, &query, |click, head| {
        click.domain = domain.map_or(0, Domain::get);
        click.reason = reason;
        click.decision = decision;
        click.slug = request::cut(head.uri.path(), 255);
    });
}

/// Records a click that gets no token, with what `decided` writes into it.
fn record(
    worker: &Worker,
    asked: &Asked<'_>,
    query: &Query<'_>,
    decided: impl for<'c> FnOnce(&mut BorrowedClick<'c>, Head<'c>),
) {
    let recorder = &mut *worker.recorder.borrow_mut();
    let Some(key) = recorder.next() else {
        worker.metrics.recorded(false);
        return;
    };
    let referrer_host = asked.fields.referrer_host();
    let shard = shard(recorder.seed, asked.client, key);
    let mut labels = query.labels.clone();
    let mut click = described(
        asked,
        key,
        shard,
        &referrer_host,
        &query.params,
        &mut labels,
        consented(&query.said, asked.fields),
    );
    decided(&mut click, asked.head);
    append(worker, recorder, asked, &click);
}

/// Appends a click, counted as an answer with its record or without. Whether it is recorded.
fn append(
    worker: &Worker,
    recorder: &mut Recorder,
    asked: &Asked<'_>,
    click: &BorrowedClick<'_>,
) -> bool {
    let address = Address::of(asked.client, click.consent == Consent::None);
    let taken = recorder.append_click(click, address.bytes()).is_some();
    if asked.client.is_none() {
        worker.metrics.unread_addresses.add(click.key.time_ms);
    }
    worker.metrics.recorded(taken);
    taken
}

/// What the request says, whatever is decided.
#[inline]
fn described<'c>(
    asked: &'c Asked<'_>,
    key: ClickKey,
    shard: Shard,
    referrer_host: &'c [u8],
    params: &'c Params<'_>,
    labels: &'c mut Vec<Label>,
    consent: (Consent, ConsentSource),
) -> BorrowedClick<'c> {
    fn text<'c>(value: &'c Option<Value<'_>>) -> &'c str {
        value.as_deref().unwrap_or_default()
    }
    if !asked.fields.navigation {
        labels.push(Label::NotNavigation);
    }
    if asked.client.is_none() {
        labels.push(Label::NoAddress);
    }
    BorrowedClick {
        key,
        shard,
        catalog_version: 0,
        catalog_hash: 0,
        class: asked.class,
        decision: event::Decision::Unspecified,
        reason: Reason::None,
        domain: 0,
        link: 0,
        offer: 0,
        affiliate: 0,
        advertiser: 0,
        labels,
        consent: consent.0,
        consent_source: consent.1,
        token_issued: false,
        cookie_set: false,
        history: &[],
        user_agent: &asked.user_agent,
        referrer_host,
        source: text(&params.source),
        creative: text(&params.creative),
        page: text(&params.page),
        ext: text(&params.ext),
        coupon: text(&params.coupon),
        cost: text(&params.cost),
        slug: "",
        subs: std::array::from_fn(|at| text(&params.sub[at])),
    }
}

/// Clicks shard by the visitor's network, so that fraud windows are local. Those without an address are nobody's, and spread.
fn shard(seed: u64, client: Option<IpAddr>, key: ClickKey) -> Shard {
    match client {
        Some(IpAddr::V4(address)) => Shard::of(seed, &address.octets()),
        Some(IpAddr::V6(address)) => Shard::of(seed, &address.octets()[..8]),
        None => Shard::of(seed, &key.sequence.to_le_bytes()),
    }
}

/// The address for the courier.
pub(crate) struct Address {
    bytes: [u8; 16],
    length: usize,
}

impl Address {
    /// Truncated here already where consent forbids to keep more.
    pub(crate) fn of(client: Option<IpAddr>, truncate: bool) -> Self {
        let mut bytes = [0; 16];
        let (length, kept) = match client {
            Some(IpAddr::V4(address)) => {
                bytes[..4].copy_from_slice(&address.octets());
                (4, 3)
            }
            Some(IpAddr::V6(address)) => {
                bytes = address.octets();
                (16, 6)
            }
            None => (0, 0),
        };
        if truncate {
            bytes[kept..].fill(0);
        }
        Self { bytes, length }
    }

    /// 4 or 16; none where there is no address.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// `cons=` speaks first, then a TCF signal, then `Sec-GPC` (Global Privacy Control), then the default. Where somebody spoke
/// and was not understood (a placeholder nobody filled in, `gdpr=true`, a TCF string, which is not read yet), no cookie is
/// set: doubt never widens consent.
fn consented(said: &Said<'_>, fields: &Fields<'_>) -> (Consent, ConsentSource) {
    let word = |text: &Option<Cow<'_, str>>| {
        let text = text.as_deref().unwrap_or_default().trim();
        text.to_ascii_lowercase()
    };
    match &*word(&said.cons) {
        "" => {}
        "all" => return (Consent::All, ConsentSource::Parameter),
        "none" => return (Consent::None, ConsentSource::Parameter),
        _ => return (Consent::Token, ConsentSource::Parameter),
    }
    match &*word(&said.gdpr) {
        // `0`: the regulation does not apply.
        "" | "0" => {}
        _ => return (Consent::Token, ConsentSource::Tcf),
    }
    if fields.gpc {
        (Consent::Token, ConsentSource::Gpc)
    } else {
        (Consent::All, ConsentSource::Default)
    }
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;

    #[test]
    fn consent_that_was_not_understood_never_sets_a_cookie() {
        for (query, gpc, expected) in [
            ("", false, Consent::All),
            ("", true, Consent::Token),
            ("cons=all", true, Consent::All),
            ("cons=ALL", false, Consent::All),
            ("cons=none", false, Consent::None),
            ("cons=+None", false, Consent::None),
            ("cons=&gdpr=", false, Consent::All),
            ("cons={cons}", false, Consent::Token),
            ("cons=1", false, Consent::Token),
            ("gdpr=0", false, Consent::All),
            ("gdpr=0", true, Consent::Token),
            ("gdpr=1", false, Consent::Token),
            ("gdpr=${GDPR}", false, Consent::Token),
            ("gdpr={gdpr}", false, Consent::Token),
            ("gdpr=true", false, Consent::Token),
            ("gdpr=2", false, Consent::Token),
            ("cons=all&gdpr=1", false, Consent::All),
        ] {
            let uri = format!("/c?{query}").parse().expect("a target");
            let mut headers = HeaderMap::new();
            if gpc {
                headers.insert("sec-gpc", "1".parse().expect("a header"));
            }
            let consent = consented(&Query::of(&uri).said, &Fields::read(&headers)).0;
            assert_eq!(consent, expected, "{query} {gpc}");
        }
    }
}
