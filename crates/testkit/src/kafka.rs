//! A real Apache Kafka for tests: brokers in KRaft mode from their Maven Central artifacts, on ports of their own.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{Running, wait};

/// The version under test.
pub const VERSION: &str = "4.1.1";

/// Names the folder of the brokers' jars; `cargo xtask test` and `cargo xtask kafka` fill it.
pub const JARS_VARIABLE: &str = "SLUICE_KAFKA_JARS";

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
    secure: SocketAddr,
    running: Option<Running>,
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
    pub fn start(jars: &Path, folder: &Path, properties: &[(&str, &str)]) -> Broker {
        fs::create_dir_all(folder).expect("a test's folder is writable");
        let [address, controller, secure] = [(); 3].map(|()| crate::lasting_address());
        let mut text = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.bootstrap.servers={controller}\n\
             listeners=PLAINTEXT://{address},CONTROLLER://{controller},SECURE://{secure}\n\
             advertised.listeners=PLAINTEXT://{address},CONTROLLER://{controller},SECURE://{secure}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL\n\
             sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n\
             listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";\n\
             listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             ssl.keystore.type=PKCS12\n\
             ssl.keystore.password={KEYSTORE_PASSWORD}\n\
             ssl.keystore.location={}\n\
             controller.listener.names=CONTROLLER\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\n",
            folder.join(KEYSTORE).display(),
            folder.join("log").display()
        );
        for (name, value) in properties {
            text.push_str(&format!("{name}={value}\n"));
        }
        fs::write(folder.join("server.properties"), text).expect("a test's folder is writable");
        fs::write(folder.join("log4j2.properties"), LOGGING).expect("a test's folder is writable");
        certify(folder);
        let mut broker = Broker {
            folder: folder.to_path_buf(),
            jars: jars.to_path_buf(),
            address,
            secure,
            running: None,
        };
        let output = broker
            .java("kafka.tools.StorageTool", "128m")
            .args(["format", "--standalone", "-t", CLUSTER, "--add-scram"])
            .arg(format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]"))
            .arg("-c")
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

    /// `HOST:PORT` of the listener with TLS and a password.
    pub fn secure_address(&self) -> String {
        self.secure.to_string()
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
