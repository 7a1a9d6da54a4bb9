//! The schema as it is compiled: one entry for each thing that a reader relies on.

use std::collections::BTreeMap;
use std::path::Path;

use domain::event::{Kind, SCHEMA_VERSION};

pub(crate) const FILE: &str = "sluice/v1/events.proto";

/// `field`, `value` (of an enum) or `kind` (of a record), whose it is, and its number.
pub(crate) type Identity = (String, String, i32);

/// What each is: a field's name, type and label, a value's name, a kind's version. Reserved numbers are `reserved`.
pub(crate) type Schema = BTreeMap<Identity, String>;

/// The folder of this crate's schemas.
pub(crate) fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/proto"))
}

/// The schema in a folder, and the kinds of records of this build.
pub(crate) fn compile(folder: &Path) -> Schema {
    let set = protox::compile([FILE], [folder]).unwrap();
    let file = set.file.iter().find(|file| file.name() == FILE).unwrap();
    let package = format!(".{}.", file.package());
    let mut schema = Schema::new();

    let mut enums: Vec<_> = file
        .enum_type
        .iter()
        .map(|one| (one.name().to_owned(), one))
        .collect();
    let mut messages: Vec<_> = file
        .message_type
        .iter()
        .map(|one| (one.name().to_owned(), one))
        .collect();
    while let Some((name, message)) = messages.pop() {
        let inner = |of: &str| format!("{name}.{of}");
        messages.extend(
            message
                .nested_type
                .iter()
                .map(|one| (inner(one.name()), one)),
        );
        enums.extend(message.enum_type.iter().map(|one| (inner(one.name()), one)));
        for field in &message.field {
            let kind = match field.type_name().strip_prefix(&package) {
                Some(of) => of.to_owned(),
                None => field.r#type().as_str_name()["TYPE_".len()..].to_ascii_lowercase(),
            };
            let label = field.label().as_str_name()["LABEL_".len()..].to_ascii_lowercase();
            let label = match label.as_str() {
                "optional" if field.proto3_optional() => " optional".to_owned(),
                "optional" => String::new(),
                other => format!(" {other}"),
            };
            let oneof = match field.oneof_index {
                Some(at) if !field.proto3_optional() => {
                    format!(" oneof {}", message.oneof_decl[at as usize].name())
                }
                _ => String::new(),
            };
            let what = format!("{}{label} {kind}{oneof}", field.name());
            schema.insert(("field".into(), name.clone(), field.number()), what);
        }
        for range in &message.reserved_range {
            for number in range.start()..range.end() {
                schema.insert(("field".into(), name.clone(), number), "reserved".into());
            }
        }
    }
    for (name, one) in enums {
        for value in &one.value {
            let identity = ("value".into(), name.clone(), value.number());
            schema.insert(identity, value.name().to_owned());
        }
        for range in &one.reserved_range {
            for number in range.start()..=range.end() {
                schema.insert(("value".into(), name.clone(), number), "reserved".into());
            }
        }
    }
    for (number, kind) in
        (0..=u16::MAX).filter_map(|number| Some((number, Kind::from_number(number)?)))
    {
        let identity = ("kind".into(), kind.name().to_owned(), i32::from(number));
        schema.insert(identity, format!("version {SCHEMA_VERSION}"));
    }
    schema
}
