//! How an order is named where it has no id of its own, and under which key its events are kept.

use std::fmt::Write;

use crate::Shard;

const TOKEN: &str = "token:";
const ORDER: &str = "order:";

/// What an order is kept under: its id, or where the shop gave none its token stands in for it (`token_text` where it does
/// not verify). An id that reads like a stand-in is told apart by `order:`.
pub fn key(order: &str, token: &[u8], token_text: &str) -> String {
    if [TOKEN, ORDER]
        .iter()
        .any(|prefix| order.starts_with(prefix))
    {
        return format!("{ORDER}{order}");
    }
    if !order.is_empty() {
        return order.to_owned();
    }
    let mut key = TOKEN.to_owned();
    for byte in token {
        let _ = write!(key, "{byte:02x}");
    }
    key + token_text
}

/// The order's id and the opened token of a [`key`]; one of the two is empty.
pub fn parts(key: &str) -> (String, Vec<u8>) {
    if let Some(order) = key.strip_prefix(ORDER) {
        return (order.to_owned(), Vec::new());
    }
    let Some(hex) = key.strip_prefix(TOKEN) else {
        return (key.to_owned(), Vec::new());
    };
    let digits = hex.as_bytes().chunks_exact(2);
    let bytes =
        digits.map_while(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    (String::new(), bytes.collect())
}

/// Postbacks shard by advertiser and order, or by the token where there is none, so that all goals of an order live in one.
pub fn shard(seed: u64, advertiser: u32, order: &str, token: &[u8], token_text: &str) -> Shard {
    let mut bytes = advertiser.to_le_bytes().to_vec();
    if order.is_empty() {
        bytes.extend_from_slice(token);
        bytes.extend_from_slice(token_text.as_bytes());
    } else {
        bytes.extend_from_slice(order.as_bytes());
    }
    Shard::of(seed, &bytes)
}

/// What `sluice.conversions` is keyed by: `7/sale/1001`. Goals' names hold no `/`.
pub fn event_key(advertiser: u32, goal: &str, key: &str) -> Vec<u8> {
    format!("{advertiser}/{goal}/{key}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_reads_like_a_stand_in_is_another_order() {
        for (order, token, expected) in [
            ("1001", &[1][..], "1001"),
            ("", &[0xab, 0x01], "token:ab01"),
            ("token:ab01", &[], "order:token:ab01"),
            ("order:1", &[], "order:order:1"),
        ] {
            let key = key(order, token, "");
            assert_eq!(key, expected);
            let token = if order.is_empty() { token } else { &[] };
            assert_eq!(parts(&key), (order.to_owned(), token.to_vec()));
        }
    }
}
