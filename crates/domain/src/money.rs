//! Money: millionths of a currency's unit, and the rates offers pay.

use rust_decimal::{Decimal, RoundingStrategy, prelude::ToPrimitive};

/// Millionths of a unit.
const MILLION: i64 = 1_000_000;

/// Millionths of a currency's unit. A CPC of 0.0035 is ordinary, so minor units would not do.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Micros(pub i64);

impl Micros {
    /// The most an amount may be: a thousand million units, so that sums of thousands of millions of them fit.
    pub const MAX: Self = Self(1_000_000_000 * 1_000_000);

    /// Reads a plain decimal such as `12.50`: no sign, exponent or grouping, at most six decimals.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = (1..=24).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            && text.starts_with(|c: char| c.is_ascii_digit());
        let value = plain.then(|| text.parse::<Decimal>().ok()).flatten()?;
        let micros = value.checked_mul(Decimal::from(1_000_000))?;
        (micros.fract().is_zero())
            .then(|| micros.to_i64())
            .flatten()
            .map(Self)
            .filter(|m| *m <= Self::MAX)
    }
}

/// A sum of millionths in units, as [`Micros`] prints: at least two decimals, more only where they say something.
pub fn text(millionths: i128) -> String {
    let mut value = Decimal::from_i128_with_scale(millionths, 6).normalize();
    if value.scale() < 2 {
        value.rescale(2);
    }
    value.to_string()
}

impl std::fmt::Display for Micros {
    /// At least two decimals, more only where they say something: `12.50`, `0.0035`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&text(self.0.into()))
    }
}

/// An ISO 4217 code.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Currency([u8; 3]);

/// Currencies of which a thousand buy little: orders of many millions are ordinary in them.
const SMALL_UNITS: [&str; 13] = [
    "COP", "GNF", "IDR", "IQD", "IRR", "KHR", "LAK", "LBP", "MMK", "PYG", "UGX", "UZS", "VND",
];

impl Currency {
    /// `None` for what is no ISO 4217 code (upper case), and for one that nobody can be paid in ([`Self::is_unpayable`]).
    pub fn parse(code: &str) -> Option<Self> {
        let known = iso_currency::Currency::from_code(code)?;
        if known.is_special() || known.is_fund() {
            return None;
        }
        code.as_bytes().try_into().ok().map(Self)
    }

    /// Whether a code is ISO 4217's and yet no money: a test (`XTS`), none (`XXX`), metals (`XAU`), units of account and funds.
    pub fn is_unpayable(code: &str) -> bool {
        iso_currency::Currency::from_code(code)
            .is_some_and(|known| known.is_special() || known.is_fund())
    }

    /// Whether an amount has no more decimals than the currency: 0.5 JPY and 0.005 USD cannot be charged.
    pub fn can_charge(&self, amount: Micros) -> bool {
        let known = iso_currency::Currency::from_code(self.code());
        let parts = known.and_then(iso_currency::Currency::subunit_fraction);
        let parts = i64::from(parts.unwrap_or(1)).max(1);
        amount.0 % (MILLION / parts) == 0
    }

    /// The most that one order can be worth without being a mistake.
    pub fn order_max(&self) -> Micros {
        if SMALL_UNITS.contains(&self.code()) {
            return Micros::MAX;
        }
        Micros(10_000_000 * MILLION)
    }

    /// The three letters.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }
}

impl std::fmt::Display for Currency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.code())
    }
}

/// What a goal is worth: `"4.00 USD"` or `"12 %"` of the order's amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Rate {
    /// The same for every conversion.
    Fixed {
        /// How much.
        micros: Micros,
        /// Of what.
        currency: Currency,
    },
    /// Of the order's amount, in millionths of a percent, in the order's currency.
    Percent {
        /// 12 % is 12,000,000.
        micros: u32,
    },
}

impl Rate {
    /// Reads `"4.00 USD"` or `"12 %"`; the error says what was expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str =
            r#"expected an amount and a currency ("4.00 USD") or a percentage ("12 %")"#;
        let (number, unit) = text
            .trim()
            .split_once(' ')
            .or_else(|| text.trim().strip_suffix('%').map(|n| (n, "%")))
            .ok_or(EXPECTED)?;
        let number = Micros::parse(number.trim()).ok_or(EXPECTED)?;
        match unit.trim() {
            "%" => match u32::try_from(number.0) {
                Ok(micros) if micros <= 1_000_000_000 => Ok(Self::Percent { micros }),
                _ => Err("a percentage is at most 1000 %"),
            },
            code => Currency::parse(code)
                .map(|currency| Self::Fixed {
                    micros: number,
                    currency,
                })
                .ok_or("expected an ISO 4217 currency such as USD"),
        }
    }

    /// What a conversion is worth. `None` when a percentage meets no amount. Exact, then half to even at a millionth.
    pub fn apply(&self, amount: Option<(Micros, Currency)>) -> Option<(Micros, Currency)> {
        match *self {
            Self::Fixed { micros, currency } => Some((micros, currency)),
            Self::Percent { micros } => {
                let (amount, currency) = amount?;
                let share =
                    Decimal::from(amount.0) * Decimal::from(micros) / Decimal::from(100_000_000);
                let share = share.round_dp_with_strategy(0, RoundingStrategy::MidpointNearestEven);
                Some((Micros(share.to_i64()?), currency))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, expected) in [
            ("12.50", Some(12_500_000)),
            ("0.0035", Some(3_500)),
            ("0", Some(0)),
            ("1000000000", Some(1_000_000_000_000_000)),
            ("1000000001", None),
            ("0.0000001", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("1,5", None),
            (".5", None),
            ("", None),
        ] {
            assert_eq!(Micros::parse(text), expected.map(Micros), "{text}");
        }
        assert_eq!(Micros(3_500).to_string(), "0.0035");
        assert_eq!(Micros(12_500_000).to_string(), "12.50");
        assert_eq!(Micros(-1_000_000).to_string(), "-1.00");
    }

    #[test]
    fn what_cannot_be_paid_is_no_currency() {
        for (code, is_money, is_unpayable) in [
            ("USD", true, false),
            ("JPY", true, false),
            ("XOF", true, false),
            ("XAF", true, false),
            ("XCD", true, false),
            ("XPF", true, false),
            ("XXX", false, true),
            ("XTS", false, true),
            ("XAU", false, true),
            ("XDR", false, true),
            ("CHE", false, true),
            ("ZZZ", false, false),
            ("usd", false, false),
        ] {
            assert_eq!(Currency::parse(code).is_some(), is_money, "{code}");
            assert_eq!(Currency::is_unpayable(code), is_unpayable, "{code}");
        }
    }

    #[test]
    fn amounts_finer_than_the_currency_or_beyond_an_order() {
        for (code, amount, can_charge, is_absurd) in [
            ("USD", "80.00", true, false),
            ("USD", "80.005", false, false),
            ("USD", "80.0100", true, false),
            ("JPY", "80", true, false),
            ("JPY", "80.00", true, false),
            ("JPY", "80.5", false, false),
            ("KWD", "1.234", true, false),
            ("KWD", "1.2345", false, false),
            ("USD", "10000000", true, false),
            ("USD", "999999999", true, true),
            ("VND", "999999999", true, false),
        ] {
            let currency = Currency::parse(code).expect(code);
            let amount = Micros::parse(amount).expect(amount);
            assert_eq!(currency.can_charge(amount), can_charge, "{code} {amount}");
            assert_eq!(amount > currency.order_max(), is_absurd, "{code} {amount}");
        }
    }

    #[test]
    fn rates() {
        let usd = Currency::parse("USD").expect("a code");
        let amount = Some((Micros(80_000_000), usd));
        for (text, expected) in [
            ("4.00 USD", Some(4_000_000)),
            ("12 %", Some(9_600_000)),
            ("12%", Some(9_600_000)),
            ("0.5 %", Some(400_000)),
        ] {
            let rate = Rate::parse(text).expect(text);
            assert_eq!(
                rate.apply(amount),
                expected.map(|m| (Micros(m), usd)),
                "{text}"
            );
        }
        assert_eq!(Rate::parse("8 %").expect("a rate").apply(None), None);
        for text in ["", "4", "4 XXZ", "-4 USD", "1001 %", "USD 4"] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }
}
