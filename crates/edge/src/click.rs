//! A click: look up, decide, mint, render, record, answer. Nothing here waits.

use std::net::IpAddr;

use domain::event::{self, Class, Consent, ConsentSource, Label, Reason, edge_record::Event};
use domain::{Domain, Shard, Token, Topic};
use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode, header};
use routing::{Decision, Params, Path, Route};

use crate::answer::{self, Answer};
use crate::cookie::History;
use crate::live::Live;
use crate::request::Said;
use crate::settings::WhenFull;
use crate::worker::Worker;
use crate::{classify, request};

/// A request as far as it is understood before anything is decided.
pub(crate) struct Asked<'r> {
    pub(crate) parts: &'r Parts,
    pub(crate) client: IpAddr,
    /// The domain, and whether its public side is HTTPS; `None` for a host that is not ours.
    pub(crate) domain: Option<(Domain, bool)>,
    pub(crate) class: Class,
}

/// Answers `/{slug}` and `/c?…` of a domain.
pub(crate) fn serve(
    worker: &Worker,
    live: &Live,
    asked: &Asked<'_>,
    domain: Domain,
    secure: bool,
) -> Answer {
    let (params, labels, said) = request::parameters(asked.parts.uri.query().unwrap_or_default());
    let slug;
    let path = if asked.parts.uri.path() == "/c" {
        Path::Click
    } else {
        let Some(found) = request::slug(asked.parts.uri.path()) else {
            unmatched(worker, asked, Reason::BadSlug, event::Decision::Refuse);
            return answer::text(
                StatusCode::BAD_REQUEST,
                "the path holds control characters or is not UTF-8",
            );
        };
        slug = found;
        Path::Slug(&slug)
    };
    let consent = consented(&said, &asked.parts.headers);
    match routing::decide(&live.table, domain, path, &params) {
        Decision::Redirect(route) => redirect(
            worker,
            live,
            asked,
            &Clicked {
                route,
                params: &params,
                labels,
                consent,
                domain,
                secure,
            },
        ),
        Decision::Refuse {
            reason,
            offer,
            affiliate,
            link,
        } => {
            let fallback = live.table.fallback(domain);
            let decision = match fallback {
                _ if asked.class == Class::Speculative => event::Decision::Speculative,
                Some(_) => event::Decision::Fallback,
                None => event::Decision::Refuse,
            };
            if offer.is_none() && link.is_none() {
                unmatched(worker, asked, reason, decision);
            } else {
                worker.metrics.decided(decision, reason);
                let mut click = described(worker, asked, &params, labels, consent);
                click.catalog_version = live.table.catalog().version;
                click.domain = domain.get();
                click.reason = reason.into();
                click.offer = offer.map_or(0, domain::Offer::get);
                click.affiliate = affiliate.map_or(0, domain::Affiliate::get);
                click.link = link.map_or(0, domain::Link::get);
                click.decision = decision.into();
                record(worker, asked, click, consent.0);
            }
            match fallback {
                _ if asked.class == Class::Speculative => answer::not_yet(),
                Some(fallback) => answer::redirect(fallback, None),
                None => answer::not_found(),
            }
        }
    }
}

struct Clicked<'t> {
    route: Route<'t>,
    params: &'t Params<'t>,
    labels: Vec<Label>,
    consent: (Consent, ConsentSource),
    domain: Domain,
    secure: bool,
}

fn redirect(worker: &Worker, live: &Live, asked: &Asked<'_>, clicked: &Clicked<'_>) -> Answer {
    let Clicked {
        route,
        params,
        labels,
        consent,
        domain,
        secure,
    } = clicked;
    let speculative = asked.class == Class::Speculative;
    let mut recorder = worker.recorder.borrow_mut();
    let Some(key) = recorder.next() else {
        worker.metrics.recorded(false);
        return unrecorded(worker, speculative, clicked);
    };
    let shard = shard(recorder.seed, asked.client);
    let headers = &asked.parts.headers;

    let token = (!speculative && consent.0 != Consent::None).then(|| {
        recorder.keyring.seal(&Token {
            click: key,
            target: route.target,
            shard,
        })
    });
    let history = History::read(headers, *secure, &mut recorder.keyring);
    drop(recorder);

    let mut click = described(worker, asked, params, labels.clone(), *consent);
    click.key = Some(key.into());
    click.catalog_version = live.table.catalog().version;
    click.domain = domain.get();
    click.link = route.link.map_or(0, domain::Link::get);
    click.offer = route.offer.get();
    click.affiliate = route.affiliate.get();
    click.advertiser = route.advertiser.get();
    click.decision = if speculative {
        event::Decision::Speculative
    } else {
        event::Decision::Redirect
    }
    .into();
    click.reason = match asked.class {
        Class::Speculative => Reason::Speculative,
        Class::Head => Reason::Head,
        Class::Bot => Reason::DeclaredBot,
        _ => Reason::None,
    }
    .into();
    for (slot, sub) in subs_mut(&mut click).into_iter().zip(route.subs) {
        *slot = sub.to_owned();
    }
    worker.metrics.decided(click.decision(), click.reason());
    click.token_issued = token.is_some();
    if history.bad {
        click.labels.push(Label::BadCookie.into());
    }
    if consent.0 == Consent::All {
        click.history = history
            .tokens
            .iter()
            .map(|token| token.to_bytes().to_vec())
            .collect();
    }
    let person = matches!(asked.class, Class::Browser | Class::NonBrowser)
        && classify::is_navigation(headers);
    let cookie = token
        .filter(|_| person && consent.0 == Consent::All)
        .map(|token| history.with(token, *secure, live.table.cookie_max_age_s()));
    click.cookie_set = cookie.is_some();

    if !record(worker, asked, click, consent.0) {
        // The disk failed between the look at the journal and the append: the token must not leave.
        return unrecorded(worker, speculative, clicked);
    }
    if speculative {
        return answer::not_yet();
    }
    let mut location = String::with_capacity(512);
    let token = token
        .as_ref()
        .map(|token| std::str::from_utf8(token).expect("tokens are base64url"));
    routing::render(route, params, token, &mut location);
    answer::redirect(&location, cookie.as_deref())
}

/// What a click gets that the journal does not take: never a token, never a cookie.
fn unrecorded(worker: &Worker, speculative: bool, clicked: &Clicked<'_>) -> Answer {
    match worker.settings.when_full {
        _ if speculative => answer::not_yet(),
        WhenFull::Redirect => {
            let mut location = String::with_capacity(512);
            routing::render(&clicked.route, clicked.params, None, &mut location);
            answer::redirect(&location, None)
        }
        WhenFull::Refuse => answer::text(
            StatusCode::SERVICE_UNAVAILABLE,
            "clicks cannot be recorded at the moment",
        ),
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
    let (params, labels, said) = request::parameters(asked.parts.uri.query().unwrap_or_default());
    let consent = consented(&said, &asked.parts.headers);
    let mut click = described(worker, asked, &params, labels, consent);
    click.domain = domain.map_or(0, Domain::get);
    click.reason = reason.into();
    click.decision = decision.into();
    click.slug = request::cut(asked.parts.uri.path(), 255).to_owned();
    record(worker, asked, click, consent.0);
}

/// What the request says, whatever is decided.
fn described(
    worker: &Worker,
    asked: &Asked<'_>,
    params: &Params<'_>,
    mut labels: Vec<Label>,
    consent: (Consent, ConsentSource),
) -> event::Click {
    let headers = &asked.parts.headers;
    if !classify::is_navigation(headers) {
        labels.push(Label::NotNavigation);
    }
    let text =
        |value: &Option<std::borrow::Cow<'_, str>>| value.as_deref().unwrap_or_default().to_owned();
    let mut click = event::Click {
        shard: shard(worker.recorder.borrow().seed, asked.client)
            .get()
            .into(),
        class: asked.class.into(),
        labels: labels.into_iter().map(i32::from).collect(),
        consent: consent.0.into(),
        consent_source: consent.1.into(),
        user_agent: String::from_utf8_lossy(classify::user_agent(headers)).into_owned(),
        referrer_host: referrer_host(headers),
        source: text(&params.source),
        creative: text(&params.creative),
        page: text(&params.page),
        ext: text(&params.ext),
        coupon: text(&params.coupon),
        cost: text(&params.cost),
        ..event::Click::default()
    };
    for (slot, sub) in subs_mut(&mut click).into_iter().zip(&params.sub) {
        *slot = text(sub);
    }
    click
}

/// Appends a click; gives it a key where it has none yet. A key that a token was sealed with stays as it is: time, stream
/// and sequence are what the sale finds the click by. Whether it is recorded.
fn record(worker: &Worker, asked: &Asked<'_>, mut click: event::Click, consent: Consent) -> bool {
    let mut recorder = worker.recorder.borrow_mut();
    if click.key.is_none() {
        click.key = recorder.next().map(Into::into);
    }
    let appended = click.key.and_then(|_| {
        let shard = shard(recorder.seed, asked.client);
        let address = address_bytes(asked.client, consent == Consent::None);
        recorder.append(Topic::Clicks, shard, address, Event::Click(click))
    });
    worker.metrics.recorded(appended.is_some());
    appended.is_some()
}

/// Clicks shard by the visitor's network, so that fraud windows are local.
pub(crate) fn shard(seed: u64, client: IpAddr) -> Shard {
    match client {
        IpAddr::V4(address) => Shard::of(seed, &address.octets()),
        IpAddr::V6(address) => Shard::of(seed, &address.octets()[..8]),
    }
}

/// The address for the courier; truncated here already where consent forbids to keep more.
pub(crate) fn address_bytes(client: IpAddr, truncate: bool) -> Vec<u8> {
    let (mut bytes, kept) = match client {
        IpAddr::V4(address) => (address.octets().to_vec(), 3),
        IpAddr::V6(address) => (address.octets().to_vec(), 6),
    };
    if truncate {
        bytes[kept..].fill(0);
    }
    bytes
}

/// `cons=` speaks first, then a TCF signal, then `Sec-GPC` (Global Privacy Control), then the default. Where somebody spoke
/// and was not understood (a TCF string is not read yet), no cookie is set: doubt never widens consent.
fn consented(said: &Said<'_>, headers: &HeaderMap) -> (Consent, ConsentSource) {
    match said.cons.as_deref() {
        Some("all") => (Consent::All, ConsentSource::Parameter),
        Some("none") => (Consent::None, ConsentSource::Parameter),
        Some(text) if !text.is_empty() => (Consent::Token, ConsentSource::Parameter),
        _ if said.gdpr.as_deref() == Some("1") => (Consent::Token, ConsentSource::Tcf),
        _ if headers.get("sec-gpc").is_some_and(|value| value == "1") => {
            (Consent::Token, ConsentSource::Gpc)
        }
        _ => (Consent::All, ConsentSource::Default),
    }
}

fn referrer_host(headers: &HeaderMap) -> String {
    let referrer = headers
        .get(header::REFERER)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let host = referrer.split_once("://").map_or("", |(_, rest)| {
        rest.split(['/', '?', '#']).next().unwrap_or_default()
    });
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    request::cut(host, 253).to_ascii_lowercase()
}

fn subs_mut(click: &mut event::Click) -> [&mut String; 10] {
    [
        &mut click.sub1,
        &mut click.sub2,
        &mut click.sub3,
        &mut click.sub4,
        &mut click.sub5,
        &mut click.sub6,
        &mut click.sub7,
        &mut click.sub8,
        &mut click.sub9,
        &mut click.sub10,
    ]
}
