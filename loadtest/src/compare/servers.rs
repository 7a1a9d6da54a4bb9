//! The servers that are compared, each a process on a core of its own: Sluice's edge, a bare hyper, nginx.

use std::error::Error;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use testkit::{Running, lasting_address};
use toml::{Table, Value};

use crate::case::Case;
use crate::compare::ablation::Command;
use crate::compare::links::Folder;
use crate::measure::connection::Tls;
use crate::measure::generator::{Generator, Plan};
use crate::measure::process as machine;
use crate::measure::visits::{Choice, HOST, Links, Visits};
use crate::place;

/// A start on a machine that also compiles; ten million links are not read before.
const UP_MAX: Duration = Duration::from_secs(60);

/// Where nginx lies when no path leads there.
const NGINX_USUAL: &str = "/usr/sbin/nginx";

/// Files beside the cases.
const CATALOG: &str = "catalog.toml";
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The edge under test.
    Sluice,
    /// hyper with a constant answer.
    BareHyper,
    /// `return 302`.
    Nginx,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sluice => "sluice",
            Self::BareHyper => "bare-hyper",
            Self::Nginx => "nginx",
        }
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    /// What its slices are kept under.
    pub(crate) name: String,
    pub(crate) running: Running,
    pub(crate) to: SocketAddr,
    /// Of Sluice: its journal's folder.
    pub(crate) journal: Option<PathBuf>,
    /// Of nginx: its access log.
    pub(crate) log: Option<PathBuf>,
}

/// What Sluice answers to a case, and the cookie that the case sends: the same for every server.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) location: String,
    pub(crate) set_cookie: String,
    /// The request's cookie.
    pub(crate) cookie: Option<String>,
    pub(crate) answer_bytes: usize,
}

/// Where servers are started.
#[derive(Debug)]
pub(crate) struct Yard {
    bin: PathBuf,
    nginx: Option<PathBuf>,
    /// For data, settings and output of servers.
    folder: PathBuf,
    /// Where the catalog and the certificate of the cases lie.
    cases: PathBuf,
    /// The core of the server and that of the generator.
    pub(crate) cores: [usize; 2],
    started: u32,
}

impl Yard {
    /// Makes keys and a catalog version in a folder.
    pub(crate) fn new(
        folder: &Path,
        cases: &Path,
        bin: &Path,
        nginx: Option<&Path>,
    ) -> Result<Yard, Box<dyn Error>> {
        let &[server, generator, ..] = &machine::cores()?[..] else {
            return Err(
                "a comparison needs two cores: one for the server, one for the generator".into(),
            );
        };
        machine::raise_open_files()?;
        let on_path = || {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let found = std::env::split_paths(&path).map(|folder| folder.join("nginx"));
            found
                .chain([NGINX_USUAL.into()])
                .find(|path| path.is_file())
        };
        let yard = Yard {
            bin: bin.to_path_buf(),
            nginx: nginx.map(Path::to_path_buf).or_else(on_path),
            folder: folder.to_path_buf(),
            cases: cases.to_path_buf(),
            cores: [server, generator],
            started: 0,
        };
        for file in [CERTIFICATE, KEY] {
            let from = cases.join(file);
            fs::copy(&from, folder.join(file))
                .map_err(|error| format!("{}: {error}", from.display()))?;
        }
        // Who reads a key may insist that nobody else can.
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder.join(KEY), fs::Permissions::from_mode(0o600))?;
        machine::pin(&[generator])?;
        Ok(yard)
    }

    /// Lets everything run once on the catalog of the cases: makes the keys, and shows what each case is answered.
    pub(crate) fn samples(
        &mut self,
        cases: &[Case],
    ) -> Result<Vec<Option<Sample>>, Box<dyn Error>> {
        let mut command = process::Command::new(self.bin.join("sluice"));
        command.arg("up").arg("--data").arg(self.data());
        command.arg("--catalog").arg(self.cases.join(CATALOG));
        let to = lasting_address();
        command.args(["--edge", &to.to_string()]);
        command.args(["--admin", "127.0.0.1:0", "--reports", "127.0.0.1:0"]);
        let mut running = place::start(command, &self.folder.join("up"), UP_MAX, |running| {
            running.stdout().contains("admin ")
        })?;
        let samples = cases
            .iter()
            .map(|case| case.slug.is_some().then(|| sample(to, case)).transpose())
            .collect::<Result<_, _>>()?;
        let ended = running.terminate(UP_MAX);
        ended.ok_or("the first start of everything does not end")?;
        Ok(samples)
    }

    /// The data folder that keys and catalog are copied from.
    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// How the generator speaks to servers of a case.
    pub(crate) fn tls(&self, case: &Case) -> Result<Option<Tls>, String> {
        let certificate = self.folder.join(CERTIFICATE);
        case.tls.then(|| Tls::new(&certificate, HOST)).transpose()
    }

    /// Starts one of these for a case.
    pub(crate) fn start(
        &mut self,
        kind: Kind,
        case: &Case,
        sample: &Sample,
        log: bool,
    ) -> Result<Server, Box<dyn Error>> {
        match kind {
            Kind::Sluice => {
                let data = self.edge_data()?;
                self.edge(case, &data, "sluice-edge", &[self.cores[0]])
            }
            Kind::BareHyper => self.bare_hyper(case, sample, "bare-hyper", &[]),
            Kind::Nginx => self.nginx(case, sample, log, ""),
        }
    }

    /// The edge with a case's settings on a data folder with links; its keys are put there where they are missing.
    pub(crate) fn edge_on(
        &mut self,
        case: &Case,
        links: &Folder,
    ) -> Result<Server, Box<dyn Error>> {
        if !links.data.join("keys").exists() {
            copy(&self.data().join("keys"), &links.data.join("keys"))?;
        }
        self.edge(case, &links.data, "sluice-edge", &[self.cores[0]])
    }

    /// The edge as one on two cores, of which the generator has one too.
    pub(crate) fn edge_on_two_cores(&mut self, case: &Case) -> Result<Server, Box<dyn Error>> {
        let mut case = case.clone();
        table(&mut case.edge, "edge").insert("workers".to_owned(), Value::Integer(2));
        let data = self.edge_data()?;
        let cores = self.cores;
        let mut server = self.edge(&case, &data, "sluice-edge", &cores)?;
        server.name = "sluice, two workers".to_owned();
        Ok(server)
    }

    /// One of these with something done otherwise.
    pub(crate) fn start_changed(
        &mut self,
        command: &Command,
        case: &Case,
        sample: &Sample,
    ) -> Result<Server, Box<dyn Error>> {
        let Command { binary, arguments } = command;
        let kind = Path::new(binary).file_name().unwrap_or_default();
        match &*kind.to_string_lossy() {
            "bare-hyper" => self.bare_hyper(case, sample, binary, arguments),
            "nginx" => self.nginx(case, sample, false, &arguments.join(" ")),
            "sluice-edge" => {
                let mut case = case.clone();
                let settings = arguments.join("\n").parse::<Table>()?;
                table(&mut case.edge, "edge").extend(settings);
                let data = self.edge_data()?;
                self.edge(&case, &data, binary, &[self.cores[0]])
            }
            other => Err(format!("{other}: expected bare-hyper, nginx or sluice-edge").into()),
        }
    }

    /// A data folder with the keys and the catalog of the cases.
    fn edge_data(&mut self) -> Result<PathBuf, Box<dyn Error>> {
        let data = self.fresh("edge")?;
        for folder in ["keys", "catalog"] {
            copy(&self.data().join(folder), &data.join(folder))?;
        }
        Ok(data)
    }

    fn edge(
        &mut self,
        case: &Case,
        data: &Path,
        binary: &str,
        cores: &[usize],
    ) -> Result<Server, Box<dyn Error>> {
        let folder = self.fresh("edge-output")?;
        let mut settings = case.edge.clone();
        if case.tls {
            let tls = table(table(&mut settings, "edge"), "tls");
            for (name, file) in [("certificate", CERTIFICATE), ("key", KEY)] {
                let path = self.folder.join(file).display().to_string();
                tls.insert(name.to_owned(), Value::String(path));
            }
        }
        let file = folder.join("sluice.toml");
        fs::write(&file, settings.to_string())?;
        let to = lasting_address();
        let mut command = process::Command::new(self.bin.join(binary));
        command.arg("--settings").arg(&file).arg("--data").arg(data);
        command.args(["--edge", &to.to_string(), "--admin", "127.0.0.1:0"]);
        let running = self.pinned(cores, command, &folder, |running| {
            running.stdout().contains(" is up: ")
        })?;
        Ok(Server {
            kind: Kind::Sluice,
            name: Kind::Sluice.name().to_owned(),
            running,
            to,
            journal: Some(data.join("journal/0")),
            log: None,
        })
    }

    fn bare_hyper(
        &mut self,
        case: &Case,
        sample: &Sample,
        binary: &str,
        flags: &[String],
    ) -> Result<Server, Box<dyn Error>> {
        let folder = self.fresh("bare-hyper")?;
        let to = lasting_address();
        let mut command = process::Command::new(self.bin.join(binary));
        command.args(flags);
        command.args(["--listen", &to.to_string()]);
        command.args([
            "--location",
            &sample.location,
            "--cookie",
            &sample.set_cookie,
        ]);
        if case.tls {
            command
                .arg("--certificate")
                .arg(self.folder.join(CERTIFICATE));
            command.arg("--key").arg(self.folder.join(KEY));
        }
        let running = self.pinned(&[self.cores[0]], command, &folder, |running| {
            running.stdout().contains(" is up: ")
        })?;
        Ok(Server {
            kind: Kind::BareHyper,
            name: Kind::BareHyper.name().to_owned(),
            running,
            to,
            journal: None,
            log: None,
        })
    }

    fn nginx(
        &mut self,
        case: &Case,
        sample: &Sample,
        log: bool,
        listen: &str,
    ) -> Result<Server, Box<dyn Error>> {
        let folder = self.fresh("nginx")?;
        let to = lasting_address();
        let file = folder.join("nginx.conf");
        let tls = case.tls.then_some(&*self.folder);
        fs::write(&file, nginx_conf(&folder, to, sample, log, tls, listen))?;
        let mut command = process::Command::new(self.nginx_path()?);
        command.arg("-p").arg(&folder).arg("-c").arg(&file);
        command.args(["-e", "stderr"]);
        let running = self.pinned(&[self.cores[0]], command, &folder, |_| {
            TcpStream::connect(to).is_ok()
        })?;
        Ok(Server {
            kind: Kind::Nginx,
            name: Kind::Nginx.name().to_owned(),
            running,
            to,
            journal: None,
            log: log.then(|| folder.join("access.log")),
        })
    }

    pub(crate) fn nginx_path(&self) -> Result<&Path, String> {
        let missing = "nginx is not there: install it, or say where it is with --nginx";
        self.nginx.as_deref().ok_or_else(|| missing.to_owned())
    }

    /// Starts a process that keeps to these cores; what starts something hands its own cores down.
    fn pinned(
        &self,
        cores: &[usize],
        command: process::Command,
        folder: &Path,
        is_up: impl Fn(&Running) -> bool,
    ) -> Result<Running, Box<dyn Error>> {
        machine::pin(cores)?;
        let spawned = Running::spawn(command, folder);
        machine::pin(&[self.cores[1]])?;
        place::wait_up(spawned?, UP_MAX, is_up)
    }

    /// An empty folder.
    pub(crate) fn fresh(&mut self, what: &str) -> Result<PathBuf, Box<dyn Error>> {
        self.started += 1;
        let folder = self.folder.join(format!("{what}-{}", self.started));
        // Of an earlier comparison in this folder: a journal to recover from is not what is measured.
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// Asks as the case does, with as many earlier clicks as it wants.
fn sample(to: SocketAddr, case: &Case) -> Result<Sample, Box<dyn Error>> {
    let mut cookie = None;
    let mut clicks = 0;
    loop {
        let visits = visits(case, cookie.as_deref())?;
        let plan = Plan {
            to,
            tls: None,
            connections: 1,
            new_connections: false,
            rate: None,
        };
        let mut generator = Generator::new(plan, visits)?;
        generator.run(Duration::from_millis(1))?.whole()?;
        let answer = String::from_utf8_lossy(generator.last_answer()).into_owned();
        let field = |name: &str| {
            let lines = answer.lines();
            let mut values = lines.filter_map(|line| line.strip_prefix(name));
            values
                .next()
                .map(str::to_owned)
                .ok_or_else(|| format!("case {}: no {name} in the answer: {answer}", case.name))
        };
        let set_cookie = field("set-cookie: ")?;
        if clicks == case.cookie_tokens {
            return Ok(Sample {
                location: field("location: ")?,
                set_cookie,
                cookie,
                answer_bytes: answer.len(),
            });
        }
        clicks += 1;
        cookie = set_cookie.split(';').next().map(str::to_owned);
    }
}

/// The visits of a case to its one link.
pub(crate) fn visits(case: &Case, cookie: Option<&str>) -> Result<Visits, String> {
    let slug = case.slug.clone();
    let slug = slug.ok_or_else(|| format!("case {} names no slug", case.name))?;
    let (links, seed) = (Links::One(slug), 1);
    Ok(Visits::new(
        HOST,
        links,
        Choice::Uniform,
        &case.query,
        cookie,
        seed,
    ))
}

/// One process without a master: what it costs is all in one place, and killing it leaves nothing behind. It serves the
/// header fields that Sluice's answer has, with the same values; `Server`, `Content-Type`, `Connection` and the body of its
/// `return 302` are its own. Its OpenSSL would send two session tickets that nobody asked for.
fn nginx_conf(
    folder: &Path,
    to: SocketAddr,
    sample: &Sample,
    log: bool,
    tls: Option<&Path>,
    listen: &str,
) -> String {
    let folder = folder.display();
    let log = if log {
        format!("access_log {folder}/access.log combined buffer=64k flush=1s;")
    } else {
        "access_log off;".to_owned()
    };
    let (ssl, certificate) = match tls {
        None => ("", String::new()),
        Some(files) => {
            let files = files.display();
            let lines = format!(
                "ssl_certificate {files}/{CERTIFICATE};\n    ssl_certificate_key {files}/{KEY};\n    \
                 ssl_protocols TLSv1.3;\n    ssl_session_cache off;\n    ssl_session_tickets off;\n    ssl_conf_command NumTickets 0;\n"
            );
            (" ssl", lines)
        }
    };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("  {what}_temp_path {folder}/{what};\n"))
        .collect();
    let (location, set_cookie) = (&sample.location, &sample.set_cookie);
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n  {log}\n  keepalive_requests 1000000000;\n  server_tokens off;\n{temporary}  \
         server {{\n    listen {to}{ssl} backlog=4096 {listen};\n    {certificate}    location / {{\n      \
         add_header Cache-Control \"no-store\";\n      \
         add_header X-Robots-Tag \"noindex, nofollow\";\n      \
         add_header Set-Cookie \"{set_cookie}\";\n      \
         return 302 \"{location}\";\n    }}\n  }}\n}}\n"
    )
}

/// A table in a table, made where it is missing.
fn table<'t>(within: &'t mut Table, name: &str) -> &'t mut Table {
    let value = within
        .entry(name.to_owned())
        .or_insert_with(|| Value::Table(Table::new()));
    if !value.is_table() {
        *value = Value::Table(Table::new());
    }
    value.as_table_mut().expect("made a table above")
}

/// Copies a folder, two levels deep: keys and catalogs are no deeper.
fn copy(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            for inner in fs::read_dir(entry.path())? {
                let inner = inner?;
                fs::copy(inner.path(), target.join(inner.file_name()))?;
            }
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

impl Server {
    /// Deletes what was recorded and read, so that a long comparison does not fill the disk.
    pub(crate) fn forget(&self) -> Result<(), Box<dyn Error>> {
        if let Some(journal) = &self.journal {
            journal::delete_before(journal, u64::MAX, |_| false)?;
        }
        if let Some(log) = &self.log {
            fs::File::options().write(true).open(log)?.set_len(0)?;
        }
        Ok(())
    }
}
