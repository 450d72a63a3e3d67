//! What stands around the image: its health check, the script that publishes once, and docker-compose.yml.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, but not in what they call")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn in_repository(path: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn health(environment: &[(&str, &str)]) -> Output {
    Command::new("sh")
        .arg(in_repository("deploy/healthcheck.sh"))
        .env_remove("KAFKA_BROKERS")
        .env_remove("TXCONNECT_HEALTH_PORTS")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn a_container_with_a_connection_to_a_broker_is_healthy_and_one_without_is_not() {
    let broker = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = broker.local_addr().unwrap().port();
    let brokers = format!("first:1,127.0.0.1:{port}");
    let waiting = health(&[("KAFKA_BROKERS", &brokers)]);
    assert_eq!(waiting.status.code(), Some(1), "an open port is not a connection");
    assert!(String::from_utf8_lossy(&waiting.stderr).contains(&format!("port 1 {port}")));

    let connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert!(health(&[("KAFKA_BROKERS", &brokers)]).status.success());
    let port = port.to_string();
    assert!(health(&[("TXCONNECT_HEALTH_PORTS", &port)]).status.success());
    drop(connection);
}

#[test]
fn only_established_connections_to_the_ports_of_the_brokers_count() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("tcp6");
    let healthy = |remote: &str, state: &str, brokers: &str| {
        let line = format!(
            "   0: 0000000000000000FFFF00000100007F:8E2A {remote} {state} 00000000:00000000 00:0 0 0"
        );
        fs::write(&table, format!("  sl  local_address remote_address st\n{line}\n")).unwrap();
        health(&[("TXCONNECT_HEALTH_TABLES", table.to_str().unwrap()), ("KAFKA_BROKERS", brokers)])
            .status
            .success()
    };
    // 9092 is 2384 in hexadecimal, 9093 is 2385.
    let remote = "0000000000000000FFFF00000100007F:2384";
    for brokers in
        ["", "kafka", "kafka:9092", "kafka:1,other:9092", "[::1]", "[::1]:9092", "SSL://kafka:9092"]
    {
        assert!(healthy(remote, "01", brokers), "{brokers}");
    }
    for brokers in ["kafka:9093", "[::1]:9093", "kafka:90"] {
        assert!(!healthy(remote, "01", brokers), "{brokers}");
    }
    // 06 is TIME_WAIT, 02 is SYN_SENT.
    assert!(!healthy(remote, "06", "kafka:9092"));
    assert!(!healthy(remote, "02", "kafka:9092"));
}

#[test]
fn the_data_is_published_once_and_again_only_after_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("txconnect");
    let calls = folder.path().join("calls");
    fs::write(&program, "#!/bin/sh\necho \"$@\" >>\"$CALLS\"\nexit \"$CODE\"\n").unwrap();
    assert!(Command::new("chmod").arg("755").arg(&program).status().unwrap().success());
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let publish = |code: &str| {
        let status = Command::new("sh")
            .arg(in_repository("deploy/publish.sh"))
            .env("PATH", &path)
            .env("CALLS", &calls)
            .env("CODE", code)
            .env("PUBLISHED_FILE", folder.path().join("published"))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        (status.code(), fs::read_to_string(&calls).unwrap().lines().count())
    };
    assert_eq!(publish("1"), (Some(1), 1));
    assert_eq!(publish("0"), (Some(0), 2));
    assert_eq!(publish("0"), (Some(0), 2));
    assert!(fs::read_to_string(&calls).unwrap().starts_with("publish --dir data/ "));
}

/// The services of docker-compose.yml with what they share filled in.
fn services() -> Vec<(String, Value)> {
    let text = fs::read_to_string(in_repository("docker-compose.yml")).unwrap();
    let mut compose: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    compose.apply_merge().unwrap();
    let compose = serde_json::to_value(&compose).unwrap();
    compose["services"].as_object().unwrap().clone().into_iter().collect()
}

fn texts<'s>(service: &'s Value, key: &str) -> Vec<&'s str> {
    service[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn no_port_is_reachable_from_other_machines() {
    let services = services();
    let ports: Vec<&str> = services.iter().flat_map(|(_, service)| texts(service, "ports")).collect();
    assert_eq!(ports.len(), 3, "{ports:?}");
    assert!(ports.iter().all(|port| port.starts_with("127.0.0.1:")), "{ports:?}");
}

#[test]
fn everything_that_is_mounted_is_there() {
    let mut mounts = 0;
    for (name, service) in services() {
        for volume in texts(&service, "volumes") {
            if let Some((path, _)) = volume.split_once(':').filter(|(path, _)| path.starts_with("./")) {
                assert!(in_repository(path).exists(), "{name}: {path}");
                mounts += 1;
            }
        }
    }
    assert!(mounts >= 9, "only {mounts} mounts were found");
}

#[test]
fn every_service_is_limited_and_says_what_happens_when_it_ends() {
    for (name, service) in services() {
        assert!(service["mem_limit"].is_string(), "{name} may take all memory");
        assert!(service["restart"].is_string(), "{name}");
        let image = service["image"].as_str().unwrap();
        assert!(image.contains("txconnect") || !image.ends_with(":latest") && image.contains(':'), "{image}");
        for (needed, how) in service["depends_on"].as_object().into_iter().flatten() {
            assert!(how["condition"] != "service_started", "{name} does not wait for {needed}");
        }
    }
}

#[test]
fn only_the_profile_bigquery_gets_the_credentials() {
    for (name, service) in services() {
        let wanted = name == "txconnect-bigquery";
        assert_eq!(!service["secrets"].is_null(), wanted, "{name}");
        assert_eq!(service["profiles"] == serde_json::json!(["bigquery"]), wanted, "{name}");
    }
}
