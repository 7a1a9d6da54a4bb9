//! The numbers catalog entries are known by in tokens and events. Handed out once, never used again; 0 is "none".

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $repr:ty, $bits:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub struct $name($repr);

        impl $name {
            /// The greatest number that fits the token.
            pub const MAX: $repr = (1 << $bits) - 1;

            /// `None` for 0 and for numbers that do not fit the token.
            pub fn new(number: $repr) -> Option<Self> {
                (1..=Self::MAX).contains(&number).then_some(Self(number))
            }

            /// The plain number.
            pub fn get(self) -> $repr {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Owes money for goals reached on its offers.
    Advertiser, u32, 24
);
number!(
    /// Is promoted by affiliates.
    Offer, u32, 18
);
number!(
    /// Is paid for: a step of an offer.
    Goal, u32, 24
);
number!(
    /// Promotes offers and is paid for goals.
    Affiliate, u32, 24
);
number!(
    /// A redirect host.
    Domain, u32, 24
);
number!(
    /// A slug of a domain that fixes affiliate and offer.
    Link, u64, 42
);
