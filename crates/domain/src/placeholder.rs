//! Placeholders nobody filled in: `{sub1}` arrives where a traffic source, a mail tool or a shop should have put a value.
//!
//! One list of notations for clicks and postbacks. A placeholder says nothing about a click, and it never identifies
//! anything: three orders named `{order_id}` are three orders.

/// The notations: what stands before a name and after it. A longer one comes before the one that it begins with.
const NOTATIONS: [Notation; 10] = [
    Notation::new("{{", "}}", true),
    Notation::new("${", "}", true),
    Notation::new("{", "}", true),
    Notation::new("[[", "]]", true),
    Notation::new("%%", "%%", true),
    // People use these in ordinary text and in ids, too: `AB__X2__7`, `sizes[mens]`.
    Notation::new("[", "]", false),
    Notation::new("__", "__", false),
    Notation::new("$", "$", false),
    Notation::new("<", ">", false),
    Notation::new("#", "#", false),
];

/// Words that programs write where a value is missing, in lower case.
const MISSING: [&str; 6] = [
    "undefined",
    "null",
    "none",
    "nan",
    "(null)",
    "[object object]",
];

/// Longest name within a placeholder, in bytes; the longest macros of ad networks have some 40.
const NAME_BYTES_MAX: usize = 64;

struct Notation {
    open: &'static str,
    close: &'static str,
    /// Whether it means a placeholder also in the middle of a text that identifies.
    is_certain: bool,
}

impl Notation {
    const fn new(open: &'static str, close: &'static str, is_certain: bool) -> Self {
        Self {
            open,
            close,
            is_certain,
        }
    }

    /// The bytes of the placeholder that `text` begins with.
    fn length(&self, text: &str) -> Option<usize> {
        let inner = text.strip_prefix(self.open)?;
        // A name may itself end like the notation does (`__A__B__`): the first end after a name counts.
        let first = inner.char_indices().nth(1)?.0;
        // No further than the longest name reaches: hostile text has an opening at every byte.
        let end = inner.floor_char_boundary(NAME_BYTES_MAX + 2 + self.close.len());
        let name_bytes = first + inner.get(first..end)?.find(self.close)?;
        let mut name = &inner[..name_bytes];
        if self.is_certain {
            // Blanks are layout: `{{ ad.id }}`.
            name = name.trim_matches(' ');
        }
        is_name(name).then_some(self.open.len() + name_bytes + self.close.len())
    }
}

/// Whether the whole value is a placeholder.
pub fn is_placeholder(value: &str) -> bool {
    let value = value.trim();
    NOTATIONS
        .iter()
        .any(|notation| notation.length(value) == Some(value.len()))
}

/// Whether the value is a placeholder or holds one: `camp_{adset}_1`.
pub fn holds_placeholder(value: &str) -> bool {
    holds(value, |_| true)
}

/// Whether a value that is to identify something (an order, a customer) identifies nothing: it is blank, a placeholder, holds
/// one that can be nothing else, or is a word that programs write where a value is missing.
pub fn identifies_nothing(value: &str) -> bool {
    let value = value.trim();
    value.is_empty()
        || MISSING.iter().any(|word| word.eq_ignore_ascii_case(value))
        || is_placeholder(value)
        || holds(value, |notation| notation.is_certain)
}

/// The bytes of the `%%NAME%%` that a text begins with. Whoever decodes an address asks: the second `%` and what follows look
/// like an escape where a name begins with two hexadecimal digits, as `%%CACHEBUSTER%%` does.
pub fn percent_placeholder_bytes(text: &[u8]) -> Option<usize> {
    const PERCENT: Notation = Notation::new("%%", "%%", true);
    if !text.starts_with(PERCENT.open.as_bytes()) {
        return None;
    }
    let longest = NAME_BYTES_MAX + PERCENT.open.len() + PERCENT.close.len();
    let beginning = text[..text.len().min(longest)].utf8_chunks().next()?;
    PERCENT.length(beginning.valid())
}

fn holds(value: &str, counts: impl Fn(&Notation) -> bool) -> bool {
    // Most values have none of these, and are not looked at twice.
    let opens = |b: u8| matches!(b, b'{' | b'[' | b'$' | b'%' | b'_' | b'<' | b'#');
    let starts = value.bytes().enumerate().filter(|(_, byte)| opens(*byte));
    starts.map(|(at, _)| &value[at..]).any(|rest| {
        NOTATIONS
            .iter()
            .any(|n| counts(n) && n.length(rest).is_some())
    })
}

/// A name begins with a letter: `{1}` and `[12]` may be a value, `{"a":1}` and `[1,2]` are JSON.
fn is_name(name: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '|');
    // Marks of some trackers' and template engines' macros: `{=sub1}`, `{!name}`, `{_x}`.
    let letters = name.trim_start_matches(['_', '=', '!']);
    name.len() <= NAME_BYTES_MAX
        && letters.starts_with(char::is_alphabetic)
        && letters.chars().all(in_name)
        // JSON's words, as in `[null]`.
        && !matches!(name, "true" | "false" | "null")
        && !is_uuid(name)
}

/// Windows writes its ids in braces: `{a3f2504e-4f89-11d3-9a0c-0305e82c3301}`.
fn is_uuid(name: &str) -> bool {
    name.len() == 36 && name.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a value is found to be: nothing, holding a placeholder, or being one.
    const VALUES: [(&str, &str); 45] = [
        ("{order_id}", "is"),
        ("{{ad.name}}", "is"),
        ("{{ ad.name }}", "is"),
        ("[CLICK_ID]", "is"),
        ("[[cr]]", "is"),
        ("${GDPR_CONSENT_12}", "is"),
        ("%%CLICK_URL_UNESC%%", "is"),
        ("__CAMPAIGN_ID__", "is"),
        ("__a__b__", "holds"),
        ("$section_id$", "is"),
        ("<clickid>", "is"),
        ("#tid#", "is"),
        (" {sub1} ", "is"),
        ("{sub1|none}", "is"),
        ("{=sub1}", "is"),
        ("{_x}", "is"),
        ("{größe}", "is"),
        ("camp_{adset}_1", "holds"),
        ("{a}{b}", "holds"),
        ("x${P}", "holds"),
        ("a__SITE__b", "holds"),
        ("é[site]", "holds"),
        ("{{{x}}}", "holds"),
        ("", "not"),
        ("shoes", "not"),
        ("{\"a\":1}", "not"),
        ("{\"a\":\"b\"}", "not"),
        ("{\"a\":{\"b\":[1,2]}}", "not"),
        ("[\"a\"]", "not"),
        ("[1,2]", "not"),
        ("[null]", "not"),
        ("[true]", "not"),
        ("{}", "not"),
        ("[]", "not"),
        ("{1}", "not"),
        ("[12]", "not"),
        ("____", "not"),
        ("_a_b_", "not"),
        ("$5 and $6", "not"),
        ("$5$", "not"),
        ("50%%", "not"),
        ("#1001#", "not"),
        ("a < b > c", "not"),
        ("{sub1", "not"),
        ("{a3f2504e-4f89-11d3-9a0c-0305e82c3301}", "not"),
    ];

    #[test]
    fn each_notation_is_found_alone_and_inside_a_value() {
        for (value, expected) in VALUES {
            let found = match (is_placeholder(value), holds_placeholder(value)) {
                (true, true) => "is",
                (false, true) => "holds",
                (false, false) => "not",
                (true, false) => "is and does not hold",
            };
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn an_order_of_a_name_that_nobody_filled_in_is_no_order() {
        for (value, expected) in [
            ("{order_id}", true),
            ("{transaction_id}", true),
            ("[[order]]", true),
            ("${ORDER}", true),
            ("%%ORDER%%", true),
            ("__ORDER__", true),
            ("[ORDER]", true),
            ("<order>", true),
            ("#order#", true),
            ("$order$", true),
            ("undefined", true),
            ("null", true),
            ("None", true),
            ("NaN", true),
            ("(null)", true),
            ("[object Object]", true),
            ("", true),
            ("  ", true),
            ("shop-{order_id}", true),
            ("1001", false),
            ("nullable", false),
            ("#1001", false),
            ("#1001#", false),
            ("AB__X2__7", false),
            ("PO[mens]7", false),
            ("{8a7d-11}", false),
            ("{3F2504E0-4F89-11D3-9A0C-0305E82C3301}", false),
        ] {
            assert_eq!(identifies_nothing(value), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged(value in ".{0,80}") {
            if is_placeholder(&value) {
                prop_assert!(holds_placeholder(&value) && identifies_nothing(&value));
            }
        }
    }
}
