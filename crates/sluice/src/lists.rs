//! `sluice clicks` and `sluice conversions`: lists, a line each. Every column but the time is a flag that filters by it.

use std::io::{self, Write};
use std::marker::PhantomData;

use clap::{Arg, ArgMatches, Args, FromArgMatches};
use reports::list::{List, list_parameters, write};
use reports::{CLICK_COLUMNS, CONVERSION_COLUMNS, Format, Parameters};
use service::Refusal;

use crate::commands::{format, now, open, refuse};
use crate::settings::Installation;

/// A list that a command prints.
pub(crate) trait Columns {
    const COLUMNS: &'static [&'static str];
}

/// `sluice clicks`
#[derive(Clone, Copy)]
pub(crate) struct Clicks;

impl Columns for Clicks {
    const COLUMNS: &'static [&'static str] = &CLICK_COLUMNS;
}

/// `sluice conversions`
#[derive(Clone, Copy)]
pub(crate) struct Conversions;

impl Columns for Conversions {
    const COLUMNS: &'static [&'static str] = &CONVERSION_COLUMNS;
}

/// What a list is asked for, as flags.
pub(crate) struct Flags<C> {
    parameters: Parameters,
    installation: Installation,
    format: Format,
    columns: PhantomData<C>,
}

impl<C: Columns> Args for Flags<C> {
    fn augment_args(command: clap::Command) -> clap::Command {
        let flag = |name: &'static str| {
            let help = match name {
                "from" => {
                    "The first day (2026-11-20), a word as for --time, or the moment from which to list"
                }
                "to" => {
                    "The last day listed, a word as for --time, or the moment before which to list"
                }
                "time" => "today, yesterday, last-7-days, this-month or last-month",
                "limit" => {
                    "Rows; 100 in a table and in JSON, all in CSV and NDJSON where no number is named"
                }
                "after" => "Go on behind this row, as the page before it says",
                name => {
                    return Arg::new(name)
                        .long(name)
                        .hide_short_help(true)
                        .help("Only rows that say one of these, comma separated");
                }
            };
            Arg::new(name).long(name).help(help)
        };
        let flags = list_parameters(C::COLUMNS).into_iter();
        let flags = flags.filter(|name| *name != "format").map(flag);
        Installation::augment_args(command)
            .args(flags)
            .arg(
                Arg::new("format")
                    .long("format")
                    .default_value("table")
                    .value_parser(format)
                    .help("table, json, ndjson or csv"),
            )
            .after_help(format!(
                "Every column filters, too (--{}).",
                C::COLUMNS[1..].join(", --")
            ))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl<C: Columns> FromArgMatches for Flags<C> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let names = list_parameters(C::COLUMNS);
        let named = names.into_iter().filter(|name| *name != "format");
        let parameters = named.fold(Parameters::default(), |parameters, name| {
            let value = matches.get_one::<String>(name);
            parameters.with(name, value.map(String::as_str))
        });
        Ok(Self {
            parameters,
            installation: Installation::from_arg_matches(matches)?,
            format: matches.get_one("format").copied().unwrap_or_default(),
            columns: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

pub(crate) fn clicks(flags: &Flags<Clicks>) -> Result<(), Refusal> {
    let (view, catalog) = open(&flags.installation.data()?).map_err(refuse)?;
    let list = reports::clicks(&view, &catalog, &flags.parameters, now(), flags.format);
    show(list.map_err(refuse)?, flags.format)
}

pub(crate) fn conversions(flags: &Flags<Conversions>) -> Result<(), Refusal> {
    let (view, catalog) = open(&flags.installation.data()?).map_err(refuse)?;
    let list = reports::conversions(&view, &catalog, &flags.parameters, now(), flags.format);
    show(list.map_err(refuse)?, flags.format)
}

/// Prints a list as its rows come. Whoever closes the pipe has read enough.
pub(crate) fn show(mut list: impl List, format: Format) -> Result<(), Refusal> {
    let mut printed = Ok(());
    let done = write(&mut list, format, &mut |text| {
        printed = io::stdout().write_all(text.as_bytes());
        printed.is_ok()
    });
    done.map_err(refuse)?;
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(refuse(error)),
        _ => Ok(()),
    }
}
