//! A real Apache Kafka for tests: brokers in KRaft mode from their Maven Central artifacts, on ports of their own.
//!
//! An existing cluster, named by `SLUICE_KAFKA` (`HOST:PORT`), is used instead where a test only needs a cluster and none
//! of its brokers' lives.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{Running, wait};

/// The version under test.
pub const VERSION: &str = "4.1.1";

/// Names the folder of the brokers' jars; `cargo xtask test` and `cargo xtask kafka` fill it.
pub const JARS_VARIABLE: &str = "SLUICE_KAFKA_JARS";
/// Names an existing cluster.
const CLUSTER_VARIABLE: &str = "SLUICE_KAFKA";

/// A start on a machine that also compiles.
const START_MAX: Duration = Duration::from_secs(90);

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

/// A broker that is also its cluster's controller.
#[derive(Debug)]
pub struct Broker {
    folder: PathBuf,
    jars: PathBuf,
    address: SocketAddr,
    running: Option<Running>,
}

impl Broker {
    /// Starts a cluster of one in a folder; `properties` are added to its configuration.
    ///
    /// # Panics
    ///
    /// When it does not start; the message holds what it wrote.
    pub fn start(jars: &Path, folder: &Path, properties: &[(&str, &str)]) -> Broker {
        fs::create_dir_all(folder).expect("a test's folder is writable");
        let ports =
            [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a loopback port is free"));
        let [address, controller] = ports.map(|port| port.local_addr().expect("it is bound"));
        let mut text = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.bootstrap.servers={controller}\n\
             listeners=PLAINTEXT://{address},CONTROLLER://{controller}\n\
             advertised.listeners=PLAINTEXT://{address},CONTROLLER://{controller}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\n",
            folder.join("log").display()
        );
        for (name, value) in properties {
            text.push_str(&format!("{name}={value}\n"));
        }
        fs::write(folder.join("server.properties"), text).expect("a test's folder is writable");
        fs::write(folder.join("log4j2.properties"), LOGGING).expect("a test's folder is writable");
        let mut broker = Broker {
            folder: folder.to_path_buf(),
            jars: jars.to_path_buf(),
            address,
            running: None,
        };
        let output = broker
            .java("kafka.tools.StorageTool", "128m")
            .args([
                "format",
                "--standalone",
                "-t",
                "c2x1aWNlLXRlc3QtMDAwMQ",
                "-c",
            ])
            .arg(folder.join("server.properties"))
            .output()
            .expect("java starts");
        assert!(
            output.status.success(),
            "kafka's storage: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        broker.restart();
        broker
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Starts it again on what it has.
    ///
    /// # Panics
    ///
    /// When it does not start; the message holds what it wrote.
    pub fn restart(&mut self) {
        let mut command = self.java("kafka.Kafka", "512m");
        command.arg(self.folder.join("server.properties"));
        let mut running =
            Running::spawn(command, &self.folder.join("output")).expect("java starts");
        wait::until("the broker answers", START_MAX, || {
            assert!(
                running.ended().is_none(),
                "kafka ended: {}",
                running.stdout()
            );
            running.stdout().contains("Kafka Server started")
                && TcpStream::connect(self.address).is_ok()
        });
        self.running = Some(running);
    }

    /// Kills it without warning.
    pub fn kill9(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill9();
        }
    }

    /// The process while it runs.
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

/// Info to standard output, which says when the broker is up.
const LOGGING: &str = "status=error\n\
    appender.out.type=Console\n\
    appender.out.name=out\n\
    appender.out.layout.type=PatternLayout\n\
    appender.out.layout.pattern=%d %p %c{1} %m%n\n\
    rootLogger.level=info\n\
    rootLogger.appenderRef.out.ref=out\n";

/// The existing cluster that tests should use, where one is named.
pub fn existing() -> Option<String> {
    std::env::var(CLUSTER_VARIABLE).ok()
}
