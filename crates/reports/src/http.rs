//! The HTTP API: `GET /api/v1/report?by=&from=&to=&format=`, `GET /api/v1/orders/ADVERTISER/ORDER` and
//! `GET /api/v1/orders/ID`. It asks nobody who they are, so the caller binds it to loopback.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use catalog::Catalog;
use http_body_util::Full;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use service::Shutdown;
use service::http::Answer;
use store::View;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::{Error, Format, OrderQuery, ReportQuery, run};

/// Queries read much of the store: more at once would only slow each other, and the consumers beside them.
const QUERIES_MAX: usize = 4;

const PATH: &str = "/api/v1/report";
const ORDERS: &str = "/api/v1/orders/";

struct Api<S> {
    source: S,
    queries: Arc<Semaphore>,
}

/// Serves until the shutdown is requested. `source` gives each query its view of the store and the catalog of names, or the
/// text of a 503. Runs inside a tokio runtime with time and I/O enabled; queries run on its blocking threads.
pub async fn serve<S>(listener: TcpListener, source: S, shutdown: Shutdown)
where
    S: Fn() -> Result<(View, Arc<Catalog>), String> + Send + Sync + 'static,
{
    let api = Arc::new(Api {
        source,
        queries: Arc::new(Semaphore::new(QUERIES_MAX)),
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
    let orders = request.uri().path().strip_prefix(ORDERS);
    if request.uri().path() != PATH && orders.is_none() {
        return refusal(
            StatusCode::NOT_FOUND,
            None,
            &format!("not found: try {PATH} or {ORDERS}ADVERTISER/ORDER"),
        );
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
    let parameters = match Parameters::parse(request.uri().query().unwrap_or_default()) {
        Ok(parameters) => parameters,
        Err((name, message)) => {
            return refusal(
                StatusCode::BAD_REQUEST,
                Some(&name),
                &format!("{name}: {message}"),
            );
        }
    };
    blocking(api, move |api| report(&api.source, &parameters)).await
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
        Err(error) => failure(&error),
    }
}

fn failure(error: &Error) -> Answer {
    match error.parameter_name() {
        Some(name) => refusal(StatusCode::BAD_REQUEST, Some(name), &error.to_string()),
        None => {
            tracing::error!(%error, "report failed");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, None, &error.to_string())
        }
    }
}

fn report<S>(source: &S, parameters: &Parameters) -> Answer
where
    S: Fn() -> Result<(View, Arc<Catalog>), String>,
{
    let (view, catalog) = match source() {
        Ok(source) => source,
        Err(message) => return refusal(StatusCode::SERVICE_UNAVAILABLE, None, &message),
    };
    let made = || {
        let format = Format::parse(parameters.format.as_deref().unwrap_or("json"))?;
        let query = ReportQuery::parse(
            parameters.by.as_deref().unwrap_or_default(),
            parameters.from.as_deref(),
            parameters.to.as_deref(),
            &catalog,
        )?;
        Ok::<_, Error>((format, run(&view, &catalog, &query)?))
    };
    match made() {
        Ok((format, report)) => {
            let kind = match format {
                Format::Table => "text/plain; charset=utf-8",
                Format::Csv => "text/csv; charset=utf-8",
                Format::Json => "application/json",
            };
            respond(StatusCode::OK, kind, report.render(format))
        }
        Err(error) => failure(&error),
    }
}

#[derive(Debug, Default)]
struct Parameters {
    by: Option<String>,
    from: Option<String>,
    to: Option<String>,
    format: Option<String>,
}

impl Parameters {
    /// What is not known is refused, so that a misspelt `form=` does not silently report all of time.
    fn parse(query: &str) -> Result<Self, (String, &'static str)> {
        let mut parameters = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let slot = match &*name {
                "by" => &mut parameters.by,
                "from" => &mut parameters.from,
                "to" => &mut parameters.to,
                "format" => &mut parameters.format,
                _ => {
                    return Err((
                        name.into_owned(),
                        "is not known: use by, from, to or format",
                    ));
                }
            };
            if slot.is_some() {
                return Err((name.into_owned(), "is given twice"));
            }
            // `from=` says as much as no `from`.
            *slot = Some(value.into_owned());
        }
        for slot in [
            &mut parameters.from,
            &mut parameters.to,
            &mut parameters.format,
        ] {
            slot.take_if(|value| value.is_empty());
        }
        Ok(parameters)
    }
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
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
