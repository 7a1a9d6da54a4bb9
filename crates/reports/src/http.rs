//! The HTTP API: `GET /api/v1/report?by=&from=&to=&format=`, the lists beside it, `GET /api/v1/orders/ADVERTISER/ORDER` and
//! `GET /api/v1/orders/ID`. It asks nobody who they are, so the caller binds it to loopback.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catalog::Catalog;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use service::http::{Answer, Body};
use service::{Clock, Shutdown};
use store::View;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::list::{self, Selection, list_parameters};
use crate::{
    CLICK_COLUMNS, CONVERSION_COLUMNS, Error, Format, OrderQuery, Parameters, ReportQuery, clicks,
    conversions, run,
};

/// Queries read much of the store: more at once would only slow each other, and the consumers beside them.
const QUERIES_MAX: usize = 4;

/// Lists under way at once: each is a thread that reads as fast as its reader does.
const LISTS_MAX: usize = 8;

/// Parts of a list that wait for its reader.
const PARTS_MAX: usize = 4;

/// A reader that takes nothing for so long gives up its list.
const PART_WAIT_MAX: Duration = Duration::from_secs(30);

const REPORT: &str = "/api/v1/report";
const ORDERS: &str = "/api/v1/orders/";

/// The lists, their columns and what makes them.
const LISTS: [(&str, &[&str], MakeList); 2] = [
    ("/api/v1/clicks", &CLICK_COLUMNS, clicks),
    ("/api/v1/conversions", &CONVERSION_COLUMNS, conversions),
];

type MakeList = for<'a> fn(
    &'a View,
    &'a Catalog,
    &Parameters,
    Timestamp,
    Format,
) -> crate::Result<Selection<'a>>;

struct Api<S> {
    source: S,
    clock: Clock,
    queries: Arc<Semaphore>,
    lists: Arc<Semaphore>,
}

/// Serves until the shutdown is requested. `source` gives each query its view of the store and the catalog of names, or the
/// text of a 503. Runs inside a tokio runtime with time and I/O enabled; queries run on its blocking threads.
pub async fn serve<S>(listener: TcpListener, source: S, clock: Clock, shutdown: Shutdown)
where
    S: Fn() -> Result<(View, Arc<Catalog>), String> + Send + Sync + 'static,
{
    let api = Arc::new(Api {
        source,
        clock,
        queries: Arc::new(Semaphore::new(QUERIES_MAX)),
        lists: Arc::new(Semaphore::new(LISTS_MAX)),
    });
    service::http::serve(listener, "reports", shutdown, move |request| {
        let api = Arc::clone(&api);
        async move { answer(api, &request).await }
    })
    .await;
}

async fn answer<S, B>(api: Arc<Api<S>>, request: &Request<B>) -> Answer
where
    S: Fn() -> Result<(View, Arc<Catalog>), String> + Send + Sync + 'static,
{
    if let Err((status, message)) = check_host(request.headers()) {
        return refusal(status, None, message);
    }
    let path = request.uri().path();
    let list = LISTS.iter().find(|(known, ..)| *known == path);
    let orders = path.strip_prefix(ORDERS);
    if path != REPORT && list.is_none() && orders.is_none() {
        let known: Vec<&str> = LISTS.iter().map(|(path, ..)| *path).collect();
        let message = format!(
            "not found: try {REPORT}, {} or {ORDERS}ADVERTISER/ORDER",
            known.join(", ")
        );
        return refusal(StatusCode::NOT_FOUND, None, &message);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, None, "use GET");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if let Some(path) = orders {
        let Some(query) = order_query(path) else {
            let message = format!("write {ORDERS}ADVERTISER/ORDER in UTF-8, or {ORDERS}ID");
            return refusal(StatusCode::BAD_REQUEST, None, &message);
        };
        return blocking(api, move |api| order(&api.source, &query)).await;
    }
    let query = request.uri().query().unwrap_or_default();
    let known = match list {
        Some((_, columns, _)) => list_parameters(columns),
        None => ReportQuery::PARAMETERS.to_vec(),
    };
    let parameters = match Parameters::parse(query, &known) {
        Ok(parameters) => parameters,
        Err(error) => return refuse(&error),
    };
    // HEAD asks whether there is an answer, not for it: nothing is read.
    if request.method() == Method::HEAD {
        return match parameters.format(Format::Json) {
            Ok(format) => respond(StatusCode::OK, format.content_type(), String::new()),
            Err(error) => refuse(&error),
        };
    }
    if let Some((_, _, make)) = list {
        return answer_list(api, *make, parameters).await;
    }
    blocking(api, move |api| report(api, &parameters)).await
}

/// Runs a query beside the requests, when its turn has come.
async fn blocking<S>(
    api: Arc<Api<S>>,
    query: impl FnOnce(&Api<S>) -> Answer + Send + 'static,
) -> Answer
where
    S: Send + Sync + 'static,
{
    let permit = Arc::clone(&api.queries)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let working = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        query(&api)
    });
    working.await.unwrap_or_else(|error| {
        tracing::error!(%error, "report query panicked");
        refusal(StatusCode::INTERNAL_SERVER_ERROR, None, "the report failed")
    })
}

/// Reads what comes after [`ORDERS`]. An order's id may hold slashes.
fn order_query(path: &str) -> Option<OrderQuery> {
    let text = |part: &str| {
        let bytes = percent_encoding::percent_decode_str(part);
        bytes.decode_utf8().ok().map(std::borrow::Cow::into_owned)
    };
    Some(match path.split_once('/') {
        Some((advertiser, order)) => OrderQuery::Order {
            advertiser: text(advertiser)?,
            order: text(order)?,
        },
        None => OrderQuery::Postback(text(path)?),
    })
}

fn order<S>(source: &S, query: &OrderQuery) -> Answer
where
    S: Fn() -> Result<(View, Arc<Catalog>), String>,
{
    let (view, catalog) = match source() {
        Ok(source) => source,
        Err(message) => return refusal(StatusCode::SERVICE_UNAVAILABLE, None, &message),
    };
    match crate::order(&view, &catalog, query) {
        Ok(Some(found)) => {
            let text = format!("{:#}\n", found.json(&catalog));
            respond(StatusCode::OK, "application/json", text)
        }
        Ok(None) => refusal(StatusCode::NOT_FOUND, None, "nobody reported such an order"),
        Err(error) => refuse(&error),
    }
}

/// The first answer of a list is its head, or why there is none; then its parts follow while it is read.
async fn answer_list<S>(api: Arc<Api<S>>, make: MakeList, parameters: Parameters) -> Answer
where
    S: Fn() -> Result<(View, Arc<Catalog>), String> + Send + Sync + 'static,
{
    let permit = Arc::clone(&api.lists)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let (head, first) = oneshot::channel();
    let (parts, rest) = mpsc::channel(PARTS_MAX);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let (view, catalog) = match (api.source)() {
            Ok(source) => source,
            Err(message) => {
                let _ = head.send(Err(refusal(
                    StatusCode::SERVICE_UNAVAILABLE,
                    None,
                    &message,
                )));
                return;
            }
        };
        let made = parameters.format(Format::Json).and_then(|format| {
            let list = make(&view, &catalog, &parameters, now(&api.clock), format)?;
            Ok((format, list))
        });
        let (format, mut list) = match made {
            Ok(made) => made,
            Err(error) => {
                let _ = head.send(Err(refuse(&error)));
                return;
            }
        };
        if head.send(Ok(format)).is_err() {
            return;
        }
        let send = |part| {
            runtime
                .block_on(parts.send_timeout(part, PART_WAIT_MAX))
                .is_ok()
        };
        let written = list::write(&mut list, format, &mut |text| send(Ok(Bytes::from(text))));
        if let Err(error) = written {
            tracing::error!(%error, "list failed");
            send(Err(io::Error::other(error)));
        }
    });
    match first.await {
        Ok(Ok(format)) => answer_with(
            StatusCode::OK,
            format.content_type(),
            service::http::in_parts(rest),
        ),
        Ok(Err(answer)) => answer,
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, None, "the list failed"),
    }
}

fn report<S>(api: &Api<S>, parameters: &Parameters) -> Answer
where
    S: Fn() -> Result<(View, Arc<Catalog>), String>,
{
    let (view, catalog) = match (api.source)() {
        Ok(source) => source,
        Err(message) => return refusal(StatusCode::SERVICE_UNAVAILABLE, None, &message),
    };
    let made = || {
        let format = parameters.format(Format::Json)?;
        let query = ReportQuery::parse(parameters, &catalog, now(&api.clock))?;
        Ok::<_, Error>((format, run(&view, &catalog, &query)?))
    };
    match made() {
        Ok((format, report)) => {
            respond(StatusCode::OK, format.content_type(), report.render(format))
        }
        Err(error) => refuse(&error),
    }
}

fn now(clock: &Clock) -> Timestamp {
    let ms = i64::try_from(clock.now_ms()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

fn refuse(error: &Error) -> Answer {
    let status = match error.parameter_name() {
        Some(_) => StatusCode::BAD_REQUEST,
        None if error.is_too_large() => StatusCode::PAYLOAD_TOO_LARGE,
        None => {
            tracing::error!(%error, "report failed");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    refusal(status, error.parameter_name(), &error.to_string())
}

/// Only an address or localhost: a web page that points its own name at this machine must not read the numbers.
fn check_host(headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err((StatusCode::BAD_REQUEST, "one Host header is needed"));
    };
    let authority = host
        .to_str()
        .ok()
        .and_then(|host| host.parse::<hyper::http::uri::Authority>().ok());
    let Some(authority) = authority else {
        return Err((StatusCode::BAD_REQUEST, "the Host header is malformed"));
    };
    let name = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    if name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err((
        StatusCode::MISDIRECTED_REQUEST,
        "ask by address, or as localhost",
    ))
}

fn refusal(status: StatusCode, parameter: Option<&str>, message: &str) -> Answer {
    let mut error = serde_json::json!({ "error": message });
    if let Some(parameter) = parameter {
        error["parameter"] = parameter.into();
    }
    respond(status, "application/json", format!("{error}\n"))
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Answer {
    answer_with(status, kind, service::http::whole(body))
}

fn answer_with(status: StatusCode, kind: &'static str, body: Body) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
