//! A postback: what an advertiser reports, checked for form and token, given its trust, and answered once it is durable.
//!
//! A token identifies, it never authorizes: it stands in every visitor's address bar. Trust comes from the secret of
//! the advertiser that owns the token's offer.

mod answer;
mod form;
mod meaning;
mod sender;

use domain::Topic;
use domain::event::edge_record::Event;
use hyper::StatusCode;

use crate::answer::Answer;
use crate::click::{Address, Asked};
use crate::live::Live;
use crate::worker::Worker;
pub(crate) use form::BodyKind;
use form::Form;

/// Longest body of a POST.
pub(crate) const BODY_BYTES_MAX: usize = 16 * 1024;

/// Records a postback: the sequence to wait for and the answer to give then, or the answer to give at once. Without the
/// body that was announced, what the query says is kept as malformed.
pub(crate) fn record(
    worker: &Worker,
    live: &Live,
    asked: &Asked<'_>,
    body: Option<(BodyKind, &[u8])>,
) -> Result<(u64, Answer), Box<Answer>> {
    let form = Form::read(asked.head.uri.query().unwrap_or_default(), body);
    let secret = sender::secret(asked.head.headers, &form);
    let mut recorder = worker.recorder.borrow_mut();
    let Some(key) = recorder.next() else {
        worker.metrics.recorded(false);
        return Err(Box::new(unrecorded()));
    };
    let mut postback = meaning::understand(
        live,
        &worker.secrets.load(),
        &recorder.keyring,
        &form,
        secret,
        key.time_ms,
    );
    postback.key = Some(key.into());
    let shard = domain::order::shard(
        recorder.seed,
        postback.advertiser,
        &postback.order,
        &postback.token,
        &postback.token_text,
    );
    postback.shard = shard.get().into();
    let catalog = live.table.catalog();
    let answer = answer::recorded(catalog, &postback, key, &form, secret.is_some());
    let sequence = recorder.append(
        Topic::Postbacks,
        shard,
        Address::of(asked.client, false).bytes(),
        Event::Postback(postback),
    );
    worker.metrics.recorded(sequence.is_some());
    match sequence {
        Some(sequence) => Ok((sequence, answer)),
        None => Err(Box::new(unrecorded())),
    }
}

/// A lost sale costs the sale: its sender is asked to come again.
fn unrecorded() -> Answer {
    crate::answer::text(
        StatusCode::SERVICE_UNAVAILABLE,
        "the postback cannot be recorded at the moment: send it again",
    )
}
