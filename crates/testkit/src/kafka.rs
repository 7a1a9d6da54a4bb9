//! A real Apache Kafka for tests: brokers in KRaft mode from their Maven Central artifacts, on ports of their own.
//!
//! A test asks for what it needs: [`any`] cluster at all, a [`broker`] of its own that it may kill, or [`three`] of them.
//! Where `SLUICE_KAFKA` names a cluster that is there already, the first is that one (under names of the test's own), and
//! the others are skipped: what is not ours is not killed.

use std::fmt::Write;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{Running, wait};

/// The version under test.
pub const VERSION: &str = "4.1.1";

/// Names the folder of the brokers' jars; `cargo xtask test` and `cargo xtask kafka` fill it.
pub const JARS_VARIABLE: &str = "SLUICE_KAFKA_JARS";

/// Far above a start of three of them on a machine that also compiles.
const START_MAX: Duration = Duration::from_secs(180);

/// The broker's classes and what they log through.
const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>sluice</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.1.1</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>4.1.1</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.1</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>2.25.1</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-api</artifactId><version>2.25.1</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-1.2-api</artifactId><version>2.25.1</version></dependency>
  </dependencies>
</project>
"#;

/// Fetches the jars into a folder, once.
///
/// # Errors
///
/// When Maven is missing or fails; the text says what to do.
pub fn fetch(folder: &Path) -> Result<(), String> {
    let done = folder.join(format!("complete-{VERSION}"));
    if done.exists() {
        return Ok(());
    }
    let because = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(because)?;
    let pom = folder.join("pom.xml");
    fs::write(&pom, POM).map_err(because)?;
    let status = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", folder.display()))
        .stdin(Stdio::null())
        .status()
        .map_err(|error| format!("mvn does not start: {error}: install maven"))?;
    if !status.success() {
        return Err("mvn could not fetch Apache Kafka: see above".to_owned());
    }
    fs::write(done, "").map_err(because)
}

/// The folder of the jars where there is one.
pub fn jars() -> Option<PathBuf> {
    let folder = match std::env::var_os(JARS_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => {
            // A test binary lies in target/<profile>/deps.
            let test = std::env::current_exe().ok()?;
            test.parent()?.parent()?.parent()?.join("kafka")
        }
    };
    folder
        .join(format!("complete-{VERSION}"))
        .exists()
        .then_some(folder)
}

/// Names a cluster (`HOST:PORT`, comma separated) that is there already, without TLS and passwords.
pub const CLUSTER_VARIABLE: &str = "SLUICE_KAFKA";

/// A cluster that a test shares with others: what it makes there has names of its own.
#[derive(Debug)]
pub struct Shared {
    address: String,
    prefix: String,
    /// Kept alive; none where the cluster is not ours.
    _broker: Option<Broker>,
}

impl Shared {
    /// `HOST:PORT`, comma separated.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What names of topics and groups begin with: no other run has it.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// Any cluster: the one that is named, or a broker of its own; none where the test is skipped.
///
/// # Panics
///
/// When the broker does not start; the message holds what it wrote.
pub fn any(test: &str, folder: &Path) -> Option<Shared> {
    let broker = match std::env::var(CLUSTER_VARIABLE) {
        Ok(address) if !address.is_empty() => Err(address),
        _ => Ok(Broker::start(&needed(test)?, folder, &[])),
    };
    Some(Shared {
        prefix: format!(
            "sluice-test-{:016x}",
            RandomState::new().build_hasher().finish()
        ),
        address: broker.as_ref().map_or_else(String::clone, Broker::address),
        _broker: broker.ok(),
    })
}

/// A broker that the test may kill; none where the test is skipped.
///
/// # Panics
///
/// As [`any`].
pub fn broker(test: &str, folder: &Path) -> Option<Broker> {
    Some(Broker::start(&ours(test)?, folder, &[]))
}

/// A cluster of three brokers that the test may kill; none where the test is skipped.
///
/// # Panics
///
/// As [`any`].
pub fn three(test: &str, folder: &Path) -> Option<Cluster> {
    Some(Cluster::start(&ours(test)?, folder))
}

/// The jars for brokers that are killed.
fn ours(test: &str) -> Option<PathBuf> {
    if std::env::var(CLUSTER_VARIABLE).is_ok_and(|address| !address.is_empty()) {
        crate::skip(
            test,
            &format!("it needs brokers of its own, to kill or to set up: unset {CLUSTER_VARIABLE}"),
        );
        return None;
    }
    needed(test)
}

fn needed(test: &str) -> Option<PathBuf> {
    let jars = jars();
    if jars.is_none() {
        crate::skip(
            test,
            "Apache Kafka is not there: cargo xtask test fetches it",
        );
    }
    jars
}

/// Three brokers that are also the cluster's controllers: two of them are a quorum.
#[derive(Debug)]
pub struct Cluster {
    brokers: Vec<Broker>,
}

impl Cluster {
    /// Starts it in a folder. A broker that is silent for some seconds counts as gone, and leaves the in-sync replicas.
    ///
    /// # Panics
    ///
    /// When it does not start; the message holds what it wrote.
    pub fn start(jars: &Path, folder: &Path) -> Cluster {
        let nodes = [1, 2, 3].map(|id| (id, crate::lasting_address(), crate::lasting_address()));
        let voters = nodes.map(|(id, _, controller)| format!("{id}@{controller}"));
        let mut brokers: Vec<Broker> = nodes
            .iter()
            .map(|(id, address, controller)| {
                let listeners = format!("PLAINTEXT://{address},CONTROLLER://{controller}");
                let mut text = properties(*id, &listeners, 3, 2);
                text.push_str(&format!(
                    "controller.quorum.voters={}\n\
                     broker.session.timeout.ms=4000\n\
                     broker.heartbeat.interval.ms=500\n\
                     replica.lag.time.max.ms=4000\n",
                    voters.join(",")
                ));
                let broker = Broker {
                    folder: folder.join(id.to_string()),
                    jars: jars.to_path_buf(),
                    address: *address,
                    secure: None,
                    memory: "384m",
                    running: None,
                    starts: 0,
                };
                broker.write(text, &[]);
                broker.format(&[]);
                broker
            })
            .collect();
        // None is up before two of them are there.
        for broker in &mut brokers {
            broker.spawn();
        }
        for broker in &mut brokers {
            broker.until_up();
        }
        Cluster { brokers }
    }

    /// `HOST:PORT` of all of them, comma separated.
    pub fn address(&self) -> String {
        let addresses: Vec<String> = self.brokers.iter().map(Broker::address).collect();
        addresses.join(",")
    }

    /// The broker of an id, from 1 on.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn broker(&mut self, id: i32) -> &mut Broker {
        let at = usize::try_from(id - 1).expect("ids begin with 1");
        &mut self.brokers[at]
    }
}

/// What every broker is configured with.
fn properties(id: i32, listeners: &str, replicas: u32, in_sync: u32) -> String {
    format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         listeners={listeners}\n\
         advertised.listeners={listeners}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL\n\
         controller.listener.names=CONTROLLER\n\
         offsets.topic.replication.factor={replicas}\n\
         offsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor={replicas}\n\
         transaction.state.log.min.isr={in_sync}\n\
         group.initial.rebalance.delay.ms=0\n\
         auto.create.topics.enable=false\n"
    )
}

/// A broker that is also a controller.
#[derive(Debug)]
pub struct Broker {
    folder: PathBuf,
    jars: PathBuf,
    address: SocketAddr,
    secure: Option<SocketAddr>,
    /// The heap's bound, as java spells it.
    memory: &'static str,
    running: Option<Running>,
    starts: u32,
}

/// The user whom the secure listener knows, by PLAIN and SCRAM-SHA-512.
pub const USER: &str = "sluice";
/// That user's password.
pub const PASSWORD: &str = "only for tests";

impl Broker {
    /// Starts a cluster of one in a folder; `properties` are added to its configuration. Beside its open listener it has one
    /// with TLS, under a certificate made here, that asks for a password.
    ///
    /// # Panics
    ///
    /// When it does not start; the message holds what it wrote.
    pub fn start(jars: &Path, folder: &Path, added: &[(&str, &str)]) -> Broker {
        fs::create_dir_all(folder).expect("a test's folder is writable");
        let [address, controller, secure] = [(); 3].map(|()| crate::lasting_address());
        let listeners =
            format!("PLAINTEXT://{address},CONTROLLER://{controller},SECURE://{secure}");
        let mut text = properties(1, &listeners, 1, 1);
        text.push_str(&format!(
            "controller.quorum.bootstrap.servers={controller}\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n\
             listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";\n\
             listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             ssl.keystore.type=PKCS12\n\
             ssl.keystore.password={KEYSTORE_PASSWORD}\n\
             ssl.keystore.location={}\n",
            folder.join(KEYSTORE).display(),
        ));
        certify(folder);
        let mut broker = Broker {
            folder: folder.to_path_buf(),
            jars: jars.to_path_buf(),
            address,
            secure: Some(secure),
            memory: "512m",
            running: None,
            starts: 0,
        };
        broker.write(text, added);
        let user = format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]");
        broker.format(&["--standalone", "--add-scram", &user]);
        broker.restart();
        broker
    }

    /// Writes its configuration.
    fn write(&self, mut text: String, added: &[(&str, &str)]) {
        fs::create_dir_all(&self.folder).expect("a test's folder is writable");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "log.dirs={}", self.folder.join("log").display());
        for (name, value) in added {
            let _ = writeln!(text, "{name}={value}");
        }
        for (name, text) in [
            ("server.properties", text.as_str()),
            ("log4j2.properties", LOGGING),
        ] {
            fs::write(self.folder.join(name), text).expect("a test's folder is writable");
        }
    }

    /// Prepares its folder, as a new cluster asks for.
    fn format(&self, arguments: &[&str]) {
        let output = self
            .java("kafka.tools.StorageTool", "128m")
            .args(["format", "-t", CLUSTER])
            .args(arguments)
            .arg("-c")
            .arg(self.folder.join("server.properties"))
            .output()
            .expect("java starts");
        assert!(
            output.status.success(),
            "kafka's storage: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// `HOST:PORT` of the listener with TLS and a password.
    ///
    /// # Panics
    ///
    /// When it is one of three: those have none.
    pub fn secure_address(&self) -> String {
        let secure = self.secure.expect("a broker alone has such a listener");
        secure.to_string()
    }

    /// The certificate (PEM) to check that listener by.
    pub fn ca(&self) -> PathBuf {
        self.folder.join(CA)
    }

    /// Starts it again on what it has.
    ///
    /// # Panics
    ///
    /// When it does not start; the message holds what it wrote.
    pub fn restart(&mut self) {
        self.spawn();
        self.until_up();
    }

    fn spawn(&mut self) {
        let mut command = self.java("kafka.Kafka", self.memory);
        command.arg(self.folder.join("server.properties"));
        // Every start keeps its own output: evidence.
        self.starts += 1;
        let output = self.folder.join(format!("output-{}", self.starts));
        let running = Running::spawn(command, &output).expect("java starts");
        self.running = Some(running);
    }

    fn until_up(&mut self) {
        let address = self.address;
        let running = self.running.as_mut().expect("it was just started");
        wait::until("the broker answers", START_MAX, || {
            assert!(
                running.ended().is_none(),
                "kafka ended: {}",
                running.stdout()
            );
            running.stdout().contains("Kafka Server started") && TcpStream::connect(address).is_ok()
        });
    }

    /// Kills it without warning.
    pub fn kill9(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill9();
        }
    }

    /// The process while it runs, to be paused and resumed.
    pub fn running(&mut self) -> Option<&mut Running> {
        self.running.as_mut()
    }

    fn java(&self, class: &str, memory: &str) -> Command {
        let mut command = Command::new("java");
        command
            .arg(format!("-Xmx{memory}"))
            .arg(format!(
                "-Dlog4j2.configurationFile={}",
                self.folder.join("log4j2.properties").display()
            ))
            .arg("-cp")
            .arg(format!("{}/*", self.jars.display()))
            .arg(class);
        command
    }
}

/// The cluster's identity: any 16 bytes.
const CLUSTER: &str = "c2x1aWNlLXRlc3QtMDAwMQ";

const KEYSTORE: &str = "keystore.p12";
const KEYSTORE_PASSWORD: &str = "changeit";
const CA: &str = "ca.pem";

/// Makes the broker's key and certificate.
fn certify(folder: &Path) {
    let keystore = folder.join(KEYSTORE);
    let keytool = |arguments: &[&str]| {
        let output = Command::new("keytool")
            .args(arguments)
            .args(["-alias", "broker", "-storetype", "PKCS12"])
            .args(["-storepass", KEYSTORE_PASSWORD, "-keystore"])
            .arg(&keystore)
            .output()
            .expect("keytool comes with java");
        assert!(
            output.status.success(),
            "keytool: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        output.stdout
    };
    keytool(&[
        "-genkeypair",
        "-keyalg",
        "EC",
        "-groupname",
        "secp256r1",
        "-dname",
        "CN=localhost",
        "-ext",
        "san=ip:127.0.0.1,dns:localhost",
        "-validity",
        "3650",
    ]);
    let certificate = keytool(&["-exportcert", "-rfc"]);
    fs::write(folder.join(CA), certificate).expect("a test's folder is writable");
}

/// Info to standard output, which says when the broker is up.
const LOGGING: &str = "status=error\n\
    appender.out.type=Console\n\
    appender.out.name=out\n\
    appender.out.layout.type=PatternLayout\n\
    appender.out.layout.pattern=%d %p %c{1} %m%n\n\
    rootLogger.level=info\n\
    rootLogger.appenderRef.out.ref=out\n";
