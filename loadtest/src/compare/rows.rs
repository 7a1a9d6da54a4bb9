//! How each row is measured.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use testkit::wait;

use crate::case::Case;
use crate::compare::Comparison;
use crate::compare::bars::{Bar, Measured};
use crate::compare::drain::Drain;
use crate::compare::links::Folder;
use crate::compare::servers::{self, Kind, Sample, Server};
use crate::measure::connection::Tls;
use crate::measure::estimate::Estimate;
use crate::measure::generator::{Generator, Outcome, Plan};
use crate::measure::process;
use crate::measure::visits::{Links, Visits};
use crate::plot;

/// What follows the last answer (a sync of the journal, the end of connections) is done after this: two sync intervals.
const SETTLE: Duration = Duration::from_millis(50);

/// An end in good order.
const END_MAX: Duration = Duration::from_secs(60);

/// How long connections are idle before their memory is looked at: a server may give some back once nothing was said for
/// seconds.
const IDLE: Duration = Duration::from_secs(3);

/// Idle connections are opened in so many waves: what a wave gives back, the next may take. What an allocator keeps for that
/// counts as theirs.
const WAVES: usize = 8;

/// How often memory is measured, each time on a server that was just started.
const MEMORY_ROUNDS: usize = 3;

/// How often a start is measured, after one that warms the cache.
const STARTS_MAX: usize = 5;

/// What one in a thousand requests takes is not seen in few of them: slices for it last so much longer.
const TAIL_LONGER: f64 = 5.0;

type Found = Result<Vec<(Bar, Measured)>, Box<dyn Error>>;

/// One slice.
struct Slice {
    outcome: Outcome,
    cpu_ns: u64,
    /// Of them, those of the courier and of kernel threads, where the whole machine counts.
    courier_ns: u64,
    kernel_ns: u64,
}

impl Slice {
    fn micros(&self) -> f64 {
        self.cpu_ns as f64 / 1000.0 / self.outcome.redirects as f64
    }

    fn json(&self, row: &str, case: &str, server: &str, round: usize) -> Value {
        let quantile = |share| self.outcome.quantile_us(share);
        json!({
            "row": row,
            "case": case,
            "server": server,
            "round": round,
            "redirects": self.outcome.redirects,
            "seconds": self.outcome.seconds,
            "cpu_ns": self.cpu_ns,
            "courier_ns": self.courier_ns,
            "kernel_ns": self.kernel_ns,
            "p50_us": quantile(0.5),
            "p99_us": quantile(0.99),
            "p999_us": quantile(0.999),
            "max_us": quantile(1.0),
        })
    }
}

/// What counts as a server's cost.
enum Scope<'a> {
    /// Its process.
    Process,
    /// Its process, kernel threads, the courier, and the write-back of its access log: one sync of it after the slice, which
    /// the kernel would do sooner or later and in somebody else's slice. The rest of the machine does nothing that is meant.
    Machine { drain: Option<&'a Draining> },
}

/// A courier behind an edge, and how many records it must have seen.
struct Draining {
    drain: Drain,
    records: Cell<u64>,
}

/// Processor time so far.
struct Spent {
    process_ns: u64,
    courier_ns: u64,
    kernel: BTreeMap<u32, u64>,
}

impl Scope<'_> {
    fn spent(&self, server: &Server) -> Result<Spent, Box<dyn Error>> {
        wait::pass(SETTLE);
        let process_ns = process::cpu_ns(server.running.pid())?;
        let mut spent = Spent {
            process_ns,
            courier_ns: 0,
            kernel: BTreeMap::new(),
        };
        if let Self::Machine { drain } = self {
            if let Some(draining) = drain {
                spent.courier_ns = draining.drain.cpu_ns()?;
            }
            spent.kernel = process::kernel_ns()?;
        }
        Ok(spent)
    }

    /// Waits until what the slice left to do is done; what this thread took for it.
    fn finish(&self, server: &Server, redirects: u64) -> Result<u64, Box<dyn Error>> {
        let Self::Machine { drain } = self else {
            return Ok(0);
        };
        if let Some(draining) = drain {
            draining.records.set(draining.records.get() + redirects);
            draining.drain.wait(draining.records.get())?;
        }
        let Some(log) = &server.log else {
            return Ok(0);
        };
        let before = process::own_thread_ns()?;
        File::open(log)?.sync_data()?;
        Ok(process::own_thread_ns()? - before)
    }
}

/// How a case is sent.
pub(super) struct Load {
    case: Case,
    tls: Option<Tls>,
    visits: Visits,
    rate: Option<f64>,
    /// Instead of what the case says.
    seconds: Option<f64>,
}

/// A server whose turn comes again and again.
struct Turn<'a> {
    server: &'a mut Server,
    load: &'a Load,
    scope: Scope<'a>,
}

impl Comparison<'_> {
    pub(super) fn load(&self, case: &Case, visits: Visits) -> Result<Load, String> {
        Ok(Load {
            tls: self.yard.tls(case)?,
            visits,
            rate: case.rate,
            seconds: self.options.seconds,
            case: case.clone(),
        })
    }

    /// Warms a server up and measures a slice of it, on connections of their own.
    fn slice(
        &self,
        load: &Load,
        server: &Server,
        scope: &Scope<'_>,
    ) -> Result<Slice, Box<dyn Error>> {
        let asked = load.seconds;
        let plan = Plan {
            to: server.to,
            tls: load.tls.clone(),
            connections: load.case.connections,
            new_connections: load.case.new_connections,
            rate: load.rate,
        };
        let measured = || -> Result<Slice, Box<dyn Error>> {
            let seed = self.slices.get() + 1;
            self.slices.set(seed);
            let mut generator = Generator::new(plan, load.visits.with_seed(seed))?;
            let warm = generator.run(load.case.warm_up(asked))?.whole()?;
            scope.finish(server, warm.redirects)?;
            let before = scope.spent(server)?;
            let outcome = generator.run(load.case.lasts(asked))?.whole()?;
            let own_ns = scope.finish(server, outcome.redirects)?;
            let after = scope.spent(server)?;
            let courier_ns = after.courier_ns - before.courier_ns;
            let kernel_ns = process::kernel_between_ns(&before.kernel, &after.kernel);
            let process_ns = after.process_ns - before.process_ns;
            Ok(Slice {
                outcome,
                cpu_ns: process_ns + courier_ns + kernel_ns + own_ns,
                courier_ns,
                kernel_ns: kernel_ns + own_ns,
            })
        };
        let slice = measured().map_err(|error| {
            let (case, server) = (&load.case.name, &server.name);
            format!("case {case}, {server}: {error}")
        })?;
        server.forget()?;
        Ok(slice)
    }

    /// Slices of these servers in turn, and back again. Whose turn it is not stands still.
    fn rounds(
        &mut self,
        row: &str,
        turns: &mut [Turn<'_>],
        mut each: impl FnMut(usize, &Slice),
    ) -> Result<(), Box<dyn Error>> {
        for turn in &mut *turns {
            turn.server.running.pause();
        }
        for round in 0..self.options.pairs {
            let mut order: Vec<usize> = (0..turns.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                let turn = &mut turns[at];
                turn.server.running.resume();
                let slice = self.slice(turn.load, turn.server, &turn.scope)?;
                turn.server.running.pause();
                let line = slice.json(row, &turn.load.case.name, &turn.server.name, round);
                self.record.line(&line)?;
                each(at, &slice);
            }
        }
        for turn in turns {
            turn.server.running.resume();
        }
        Ok(())
    }

    /// Microseconds of the processes in such rounds under one load.
    pub(super) fn micros(
        &mut self,
        row: &str,
        running: &mut [Server],
        load: &Load,
    ) -> Result<Vec<Vec<f64>>, Box<dyn Error>> {
        let mut micros = vec![Vec::new(); running.len()];
        let turns = running.iter_mut().map(|server| Turn {
            server,
            load,
            scope: Scope::Process,
        });
        self.rounds(row, &mut turns.collect::<Vec<_>>(), |at, slice| {
            micros[at].push(slice.micros());
        })?;
        Ok(micros)
    }

    /// Those asked for.
    fn opponents(&self, bars: &[(Kind, Bar)]) -> Result<Vec<(Kind, Bar)>, String> {
        let against = &self.inputs.against;
        let asked = bars.iter().filter(|(kind, _)| against.contains(kind));
        let asked: Vec<_> = asked.copied().collect();
        if asked.is_empty() {
            return Err("--against names none of its opponents".to_owned());
        }
        Ok(asked)
    }

    /// Processor time of the process, in cases that are columns.
    pub(super) fn cpu(&mut self, cases: &[&str], bars: &[(Kind, Bar)]) -> Found {
        let bars = self.opponents(bars)?;
        let mut columns = Vec::new();
        for name in cases {
            let (case, sample) = self.case(name)?;
            let load = self.load(&case, servers::visits(&case, sample.cookie.as_deref())?)?;
            let sluice = self.yard.start(Kind::Sluice, &case, &sample, false)?;
            let mut running = vec![sluice];
            for (kind, _) in &bars {
                running.push(self.yard.start(*kind, &case, &sample, false)?);
            }
            let micros = self.micros("cpu", &mut running, &load)?;
            tell(&case, &sample, &load, &running, &micros);
            columns.push(ratios(&micros));
        }
        Ok(measured(bars.iter().map(|(_, bar)| *bar), &columns))
    }

    /// Processor time of everything that a redirect causes.
    pub(super) fn machine(&mut self, cases: &[&str]) -> Found {
        let bars = self.opponents(&[(Kind::Nginx, Bar::MachineNginx)])?;
        let mut columns = Vec::new();
        for name in cases {
            let (case, sample) = self.case(name)?;
            let load = self.load(&case, servers::visits(&case, sample.cookie.as_deref())?)?;
            let mut sluice = self.yard.start(Kind::Sluice, &case, &sample, false)?;
            let mut nginx = self.yard.start(Kind::Nginx, &case, &sample, true)?;
            let journal = sluice.journal.clone().ok_or("an edge has a journal")?;
            let cursors = self.yard.fresh("cursors")?;
            let draining = Draining {
                drain: Drain::start(&journal, &cursors, self.yard.cores[0])?,
                records: Cell::new(0),
            };
            let drain = Some(&draining);
            let mut turns =
                [(&mut sluice, drain), (&mut nginx, None)].map(|(server, drain)| Turn {
                    server,
                    load: &load,
                    scope: Scope::Machine { drain },
                });
            let mut micros = vec![Vec::new(); 2];
            let (mut courier, mut kernel) = (vec![Vec::new(); 2], vec![Vec::new(); 2]);
            self.rounds("machine", &mut turns, |at, slice| {
                let each = |ns: u64| ns as f64 / 1000.0 / slice.outcome.redirects as f64;
                micros[at].push(slice.micros());
                courier[at].push(each(slice.courier_ns));
                kernel[at].push(each(slice.kernel_ns));
            })?;
            draining.drain.stop()?;
            println!(
                "{name}, whole machine: sluice {} µs a redirect (courier {}, kernel threads {}), nginx with its log {} µs \
                 (kernel threads and its log's sync {})",
                Estimate::of(&micros[0]).text(2),
                Estimate::of(&courier[0]).text(2),
                Estimate::of(&kernel[0]).text(2),
                Estimate::of(&micros[1]).text(2),
                Estimate::of(&kernel[1]).text(2),
            );
            columns.push(ratios(&micros));
        }
        Ok(measured(bars.iter().map(|(_, bar)| *bar), &columns))
    }

    /// Latency at a share of the lower of the two peaks, in cases that are columns.
    pub(super) fn tail(&mut self, cases: &[&str]) -> Found {
        let bars = self.opponents(&[(Kind::BareHyper, Bar::TailBare)])?;
        let mut columns = Vec::new();
        for name in cases {
            columns.push(self.tail_of(name)?);
        }
        Ok(measured(bars.iter().map(|(_, bar)| *bar), &columns))
    }

    fn tail_of(&mut self, name: &str) -> Result<Vec<Estimate>, Box<dyn Error>> {
        let (case, sample) = self.case(name)?;
        let share = case.share_of_peak;
        let share = share.ok_or_else(|| format!("case {name} has no share_of_peak"))?;
        let mut load = self.load(&case, servers::visits(&case, sample.cookie.as_deref())?)?;
        let mut running = Vec::new();
        for kind in [Kind::Sluice, Kind::BareHyper] {
            running.push(self.yard.start(kind, &case, &sample, false)?);
        }
        let mut peaks = Vec::new();
        for server in &running {
            peaks.push(self.slice(&load, server, &Scope::Process)?.outcome.rate());
        }
        let rate = peaks.iter().copied().fold(f64::INFINITY, f64::min) * share;
        load.rate = Some(rate);
        load.seconds = load.seconds.map(|seconds| seconds * TAIL_LONGER);
        let mut tails = vec![Vec::new(); 2];
        let mut all: Vec<Option<Histogram<u64>>> = vec![None; 2];
        let turns = running.iter_mut().map(|server| Turn {
            server,
            load: &load,
            scope: Scope::Process,
        });
        self.rounds("tail", &mut turns.collect::<Vec<_>>(), |at, slice| {
            tails[at].push(slice.outcome.quantile_us(0.999));
            let latencies = &slice.outcome.latencies;
            match &mut all[at] {
                Some(sum) => sum.add(latencies).expect("all have the same bounds"),
                none => *none = Some(latencies.clone()),
            }
        })?;
        let whole = |at: usize| {
            let all = all[at].as_ref();
            all.map_or(0.0, |all| all.value_at_quantile(0.999) as f64 / 1000.0)
        };
        println!(
            "{name}: peaks sluice {:.0}, bare-hyper {:.0} a second; at {rate:.0} a second p99.9 of a slice sluice {} µs, \
             bare-hyper {} µs; of all slices together {:.0} and {:.0} µs",
            peaks[0],
            peaks[1],
            Estimate::of(&tails[0]).text(0),
            Estimate::of(&tails[1]).text(0),
            whole(0),
            whole(1),
        );
        let curves: Vec<_> = running
            .iter()
            .zip(&all)
            .filter_map(|(server, all)| Some((server.kind.name(), all.as_ref()?)))
            .collect();
        self.record
            .file(&format!("{name}.svg"), &plot::percentiles(&curves))?;
        Ok(ratios(&tails))
    }

    /// What a snapshot takes for each link.
    pub(super) fn snapshot(&mut self) -> Found {
        let links = self.links("--links-data", self.inputs.links_data.as_ref())?;
        let (bytes, count) = (fs::metadata(links.snapshot()?)?.len(), links.slugs.len());
        let destinations = links.destination_bytes;
        println!("snapshot: {bytes} bytes, of which {destinations} of destinations; {count} links");
        let each = Estimate::exact((bytes as f64 - destinations as f64) / count as f64);
        Ok(vec![(Bar::SnapshotBytes, each.into())])
    }

    /// From starting the process to its first redirect.
    pub(super) fn start(&mut self, name: &str) -> Found {
        let case = self.links_case(name)?;
        let links = self.links("--links-data", self.inputs.links_data.as_ref())?;
        let mut seconds = Vec::new();
        // The first one warms the cache.
        for round in 0..=self.options.pairs.min(STARTS_MAX) {
            let visits = visits_to(&case, &links);
            let started = Instant::now();
            let mut server = self.yard.edge_on(&case, &links)?;
            let plan = Plan {
                to: server.to,
                tls: None,
                connections: 1,
                new_connections: false,
                rate: None,
            };
            Generator::new(plan, visits)?
                .run(Duration::from_millis(1))?
                .whole()?;
            let took = started.elapsed().as_secs_f64();
            let ended = server.running.terminate(END_MAX);
            ended.ok_or("the edge does not end")?;
            self.record
                .line(&json!({"row": "start", "case": name, "round": round, "seconds": took}))?;
            if round > 0 {
                seconds.push(took);
            }
        }
        Ok(vec![(Bar::StartSeconds, Estimate::of(&seconds).into())])
    }

    /// Processor time with many links against few.
    pub(super) fn growth(&mut self, bars: &[(&str, Bar)]) -> Found {
        let few = self.links("--links-few", self.inputs.links_few.as_ref())?;
        let many = self.links("--links-data", self.inputs.links_data.as_ref())?;
        let mut found = Vec::new();
        for (name, bar) in bars {
            let case = self.links_case(name)?;
            let mut loads = Vec::new();
            let mut running = Vec::new();
            for links in [&many, &few] {
                loads.push(self.load(&case, visits_to(&case, links))?);
                let mut server = self.yard.edge_on(&case, links)?;
                server.name = format!("sluice, {} links", links.slugs.len());
                running.push(server);
            }
            let turns = running.iter_mut().zip(&loads);
            let turns = turns.map(|(server, load)| Turn {
                server,
                load,
                scope: Scope::Process,
            });
            let mut micros = vec![Vec::new(); 2];
            self.rounds("growth", &mut turns.collect::<Vec<_>>(), |at, slice| {
                micros[at].push(slice.micros());
            })?;
            println!(
                "{name}: {} links {} µs a redirect, {} links {} µs",
                many.slugs.len(),
                Estimate::of(&micros[0]).text(2),
                few.slugs.len(),
                Estimate::of(&micros[1]).text(2),
            );
            let more = micros[0].iter().zip(&micros[1]);
            let more: Vec<f64> = more.map(|(many, few)| (many / few - 1.0) * 100.0).collect();
            found.push((*bar, Estimate::of(&more).into()));
        }
        Ok(found)
    }

    /// Memory of connections that had a request each and are idle now.
    pub(super) fn memory(&mut self, name: &str) -> Found {
        let (case, sample) = self.case(name)?;
        let mut kib = Vec::new();
        for kind in [Kind::Sluice, Kind::BareHyper] {
            let mut values = Vec::new();
            for round in 0..MEMORY_ROUNDS {
                let server = self.yard.start(kind, &case, &sample, false)?;
                let bytes = self.idle_bytes(&case, &sample, &server)?;
                self.record.line(&json!({
                    "row": "memory", "case": name, "server": kind.name(), "round": round, "bytes_per_connection": bytes,
                }))?;
                values.push(bytes / 1024.0);
            }
            kib.push(Estimate::of(&values));
        }
        println!(
            "{name}: {} idle connections, sluice {} KiB each, bare-hyper (mimalloc) {} KiB",
            case.connections,
            kib[0].text(2),
            kib[1].text(2)
        );
        Ok(vec![(Bar::IdleMemory, kib[0].into())])
    }

    fn idle_bytes(
        &self,
        case: &Case,
        sample: &Sample,
        server: &Server,
    ) -> Result<f64, Box<dyn Error>> {
        let pid = server.running.pid();
        let open = |connections: usize| -> Result<Generator, Box<dyn Error>> {
            let plan = Plan {
                to: server.to,
                tls: self.yard.tls(case)?,
                connections,
                new_connections: false,
                rate: None,
            };
            let visits = servers::visits(case, sample.cookie.as_deref())?;
            let mut generator = Generator::new(plan, visits)?;
            generator.run(case.lasts(None))?.whole()?;
            if generator.opened() < connections {
                return Err("the connections were not open in time".into());
            }
            wait::pass(IDLE);
            Ok(generator)
        };
        let wave = case.connections.div_ceil(WAVES);
        // What the first one needs, none needs again.
        let mut idle = vec![open(1)?];
        let before = process::anonymous_bytes(pid)?;
        for _ in 0..WAVES {
            idle.push(open(wave)?);
        }
        let after = process::anonymous_bytes(pid)?;
        drop(idle);
        match after.checked_sub(before) {
            Some(more) if more > 0 => Ok(more as f64 / (wave * WAVES) as f64),
            _ => Err(
                format!("memory went from {before} to {after} bytes as connections came").into(),
            ),
        }
    }

    /// What other tools measured.
    pub(super) fn bench(&mut self) -> Found {
        let file = self.inputs.bench.as_ref().ok_or("no --bench given")?;
        let text =
            fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let values: Value =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        let value = |name: &str| values[name].as_f64();
        let micros = |name: &str| value(name).map(|ns| ns / 1000.0);
        let of = |name: &str| {
            let redirect = value(&format!("instructions_per_redirect{name}"));
            let bare = value("instructions_per_redirect_bare");
            Some(redirect? / bare?)
        };
        let over = |name: &str| value(&format!("allocations_per_redirect{name}_over_bare"));
        let bars = [
            (Bar::Instructions, of(""), of("_full")),
            (Bar::Allocations, over(""), over("_full")),
            (Bar::AppendMean, micros("append_mean_ns"), None),
            (Bar::AppendTail, micros("append_p999_ns"), None),
        ];
        let known = bars.into_iter().filter_map(|(bar, plain, full)| {
            let plain = Estimate::exact(plain?);
            let full = full.map(Estimate::exact);
            Some((bar, Measured { plain, full }))
        });
        Ok(known.collect())
    }

    /// Redirects a second on one core and on two.
    pub(super) fn scale(&mut self, name: &str) -> Found {
        let (case, sample) = self.case(name)?;
        let load = self.load(&case, servers::visits(&case, sample.cookie.as_deref())?)?;
        let mut one = self.yard.start(Kind::Sluice, &case, &sample, false)?;
        let mut two = self.yard.edge_on_two_cores(&case)?;
        let mut turns = [&mut one, &mut two].map(|server| Turn {
            server,
            load: &load,
            scope: Scope::Process,
        });
        let (mut rates, mut micros) = (vec![Vec::new(); 2], vec![Vec::new(); 2]);
        self.rounds("scale", &mut turns, |at, slice| {
            rates[at].push(slice.outcome.rate());
            micros[at].push(slice.micros());
        })?;
        println!(
            "{name}: one worker on one core {} redirects a second at {} µs of processor each, two workers on two cores {} at \
             {} µs: {} times as many. The generator has the second of these cores too, so that two workers have less than \
             two cores.",
            Estimate::of(&rates[0]).text(0),
            Estimate::of(&micros[0]).text(2),
            Estimate::of(&rates[1]).text(0),
            Estimate::of(&micros[1]).text(2),
            pairs(&rates[1], &rates[0]).text(2),
        );
        Ok(Vec::new())
    }

    /// One case against Sluice alone.
    pub(super) fn alone(&mut self, case: &Case) -> Result<(), Box<dyn Error>> {
        let (server, visits) = if case.slug.is_some() {
            let (_, sample) = self.case(&case.name)?;
            let server = self.yard.start(Kind::Sluice, case, &sample, false)?;
            (server, servers::visits(case, sample.cookie.as_deref())?)
        } else {
            let links = self.links("--links-data", self.inputs.links_data.as_ref())?;
            (self.yard.edge_on(case, &links)?, visits_to(case, &links))
        };
        let mut load = self.load(case, visits)?;
        if let Some(share) = case.share_of_peak {
            let peak = self.slice(&load, &server, &Scope::Process)?.outcome.rate();
            println!("peak: {peak:.0} redirects a second");
            load.rate = Some(peak * share);
        }
        let slice = self.slice(&load, &server, &Scope::Process)?;
        self.record
            .line(&slice.json("case", &case.name, "sluice", 0))?;
        let curve = [("sluice", &slice.outcome.latencies)];
        let svg = plot::percentiles(&curve);
        self.record.file(&format!("{}.svg", case.name), &svg)?;
        println!(
            "{} redirects in {:.2} s: {:.0} a second at {:.2} µs of processor each; latency p50 {:.0} µs, p99 {:.0}, p99.9 \
             {:.0}, slowest {:.0}",
            slice.outcome.redirects,
            slice.outcome.seconds,
            slice.outcome.rate(),
            slice.micros(),
            slice.outcome.quantile_us(0.5),
            slice.outcome.quantile_us(0.99),
            slice.outcome.quantile_us(0.999),
            slice.outcome.quantile_us(1.0),
        );
        Ok(())
    }
}

/// The visits of a case to all links of a folder.
pub(super) fn visits_to(case: &Case, folder: &Folder) -> Visits {
    let links = Links::Many(folder.slugs.clone());
    let choice = case.choice(&links);
    Visits::new(&folder.host, links, choice, &case.query, None, 1)
}

/// The first one's values against each other's, pair by pair.
fn ratios(values: &[Vec<f64>]) -> Vec<Estimate> {
    let others = values[1..].iter();
    others.map(|other| pairs(&values[0], other)).collect()
}

/// One's values against another's, pair by pair.
pub(super) fn pairs(ours: &[f64], theirs: &[f64]) -> Estimate {
    let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs);
    Estimate::of(&ratios.collect::<Vec<_>>())
}

/// Bars with their ratios; the columns are `plain` and, where there is one, `full`.
fn measured(bars: impl Iterator<Item = Bar>, columns: &[Vec<Estimate>]) -> Vec<(Bar, Measured)> {
    let of = |(at, bar)| {
        let plain = columns[0][at];
        let full = columns.get(1).map(|column: &Vec<Estimate>| column[at]);
        (bar, Measured { plain, full })
    };
    bars.enumerate().map(of).collect()
}

/// What was measured, before any ratio.
fn tell(case: &Case, sample: &Sample, load: &Load, running: &[Server], micros: &[Vec<f64>]) {
    let each: Vec<String> = running
        .iter()
        .zip(micros)
        .map(|(server, micros)| {
            let name = server.kind.name();
            format!("{name} {} µs", Estimate::of(micros).text(2))
        })
        .collect();
    println!(
        "{}: {} of processor a redirect; requests of {} bytes, Sluice's answer has {}",
        case.name,
        each.join(", "),
        load.visits.request_bytes(),
        sample.answer_bytes
    );
}
