//! What a click adds to its bucket, as a function of the marks of its group.

use consumer::{Error, Output};
use domain::{ClickKey, time::bucket};
use store::{Change, Cube, Mark, MarkGroup, RollupKey, Source};

/// Changes the mark of one click and moves the group's rollups by the difference.
pub(crate) fn change(
    out: &mut Output<'_, '_>,
    source: u8,
    group: &MarkGroup,
    click: ClickKey,
    link: u64,
    apply: impl FnOnce(&mut Mark),
) -> Result<(), Error> {
    let before = out.batch.mark(group, click)?.unwrap_or(Mark {
        click,
        seen: false,
        reasons: 0,
        link,
    });
    let mut after = before;
    apply(&mut after);
    if after == before {
        return Ok(());
    }
    let first_before = out.batch.first_valid(group)?;
    out.batch.put_mark(group, &after)?;
    let first_after = out.batch.first_valid(group)?;

    let mut add = |mark: &Mark, first: Option<&Mark>, sign: i64| -> Result<(), Error> {
        let first = first.is_some_and(|first| first.click == mark.click);
        let reason = if mark.reasons == 0 {
            0
        } else {
            mark.reasons.trailing_zeros()
        };
        let change = match (mark.seen, reason, first) {
            (false, _, _) => return Ok(()),
            // Nobody can tell a click without a person from another one: none of them is unique.
            (true, 0, _) if group.visitor == 0 => Change {
                anonymous: sign,
                ..Change::default()
            },
            (true, 0, true) => Change {
                clicks: sign,
                unique: sign,
                ..Change::default()
            },
            (true, 0, false) => Change {
                clicks: sign,
                duplicate: sign,
                ..Change::default()
            },
            (true, _, _) => Change {
                invalid: sign,
                ..Change::default()
            },
        };
        let row = RollupKey {
            cube: Cube::Traffic,
            bucket_ms: bucket(mark.click.time_ms),
            offer: group.offer,
            affiliate: group.affiliate,
            link: mark.link,
            reason,
            currency: String::new(),
            source: Source {
                consumer: source,
                partition: out.partition,
            },
        };
        Ok(out.batch.add_rollup(&row, &change)?)
    };
    add(&before, first_before.as_ref(), -1)?;
    add(&after, first_after.as_ref(), 1)?;
    // Who else lost or won the first place.
    for other in [&first_before, &first_after]
        .into_iter()
        .flatten()
        .filter(|other| other.click != click)
    {
        if first_before.as_ref().map(|first| first.click)
            != first_after.as_ref().map(|first| first.click)
        {
            add(other, first_before.as_ref(), -1)?;
            add(other, first_after.as_ref(), 1)?;
        }
    }
    Ok(())
}
