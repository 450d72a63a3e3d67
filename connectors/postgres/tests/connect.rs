//! Connecting to real and to unreal servers: what goes wrong is said in plain words, and ends in time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::own_server::OwnServer;
use support::{Schema, connector, one, refusal, run, server, session, settings, until, with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use txconnect_connector_api::SinkError;
use txconnect_postgres::connect::{Connector, Session};
use txconnect_postgres::error::{DataError, Trouble};

/// The address of the test's server with another host, or several.
fn at(hosts: &str) -> String {
    let url = server();
    let (start, rest) = url.split_once('@').expect("a user in PG_URL");
    let (_, database) = rest.split_once('/').expect("a database in PG_URL");
    format!("{start}@{hosts}/{database}")
}

fn host_and_port() -> String {
    let url = server();
    let rest = url.split_once('@').expect("a user in PG_URL").1;
    rest.split('/').next().expect("a host in PG_URL").to_owned()
}

/// A port at which nothing listens.
async fn dead_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn passes(url: &str, words: &str) {
    let error = refusal(url).await;
    assert!(
        matches!(&error, SinkError::Transient { cause, .. } if cause.contains(words)),
        "{url}: {error:?}"
    );
}

async fn lasts(url: &str, words: &str) {
    let error = refusal(url).await;
    assert!(
        matches!(&error, SinkError::Fatal { cause, hint: Some(_) } if cause.contains(words)),
        "{url}: {error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_from_a_mistake_in_plain_words() {
    let dead = dead_port().await;
    passes(&at(&dead.to_string()), &format!("{dead}: connection refused")).await;
    passes(&at("no-such-host.invalid"), "the name `no-such-host.invalid` was not found").await;
    lasts(&at(&host_and_port()).replace("postgres:", "postgres:not"), "password authentication failed").await;
    lasts(&with(&server(), "dbname=no_such_database"), "database \"no_such_database\" does not exist").await;
    lasts(&with(&server(), "sslmode=require"), "the server does not speak TLS").await;
    lasts(&with(&server(), "password="), "asks for a password").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_host_is_passed_over_and_every_host_is_named_where_none_works() {
    let dead = dead_port().await;
    let url = at(&format!("{dead},{}", host_and_port()));
    let session = connector(&url).connect("txconnect test").await.unwrap();
    assert_eq!(one(&session, "SELECT 1").await, "1");
    let error = refusal(&at(&format!("{dead},no-such-host.invalid"))).await.to_string();
    assert!(error.contains(&dead.to_string()) && error.contains("no-such-host.invalid"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_waited_for() {
    let read_only = with(&server(), "options=-c%20default_transaction_read_only%3Don");
    passes(&read_only, "read-only").await;
    passes(&with(&read_only, "target_session_attrs=read-write"), "read-only").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_standby_and_its_primary_the_primary_is_used() {
    let access = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n";
    let primary = OwnServer::start("", access);
    let standby = primary.standby();
    let url = |hosts: &str| format!("postgresql://postgres:secret@{hosts}/postgres");
    let standby_address = format!("127.0.0.1:{}", standby.port);
    for attributes in ["any", "read-write", "primary"] {
        let hosts = format!("{standby_address},127.0.0.1:{}", primary.port);
        let url = with(&url(&hosts), &format!("target_session_attrs={attributes}"));
        let session = connector(&url).connect("txconnect test").await.unwrap();
        assert_eq!(one(&session, "SELECT current_setting('port')").await, primary.port.to_string());
    }
    passes(&url(&standby_address), "standby").await;
    // A socket is a folder in place of a host.
    let folder = primary.path("").display().to_string().replace('/', "%2F");
    let socket = format!("postgresql://postgres@{folder}:{}/postgres?sslmode=require", primary.port);
    let session = connector(&socket).connect("txconnect test").await.unwrap();
    assert_eq!(one(&session, "SELECT inet_client_addr() IS NULL").await, "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_never_answers_costs_its_time_and_no_more() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = at(&format!("{},{}", silent.local_addr().unwrap(), host_and_port()));
    let begun = Instant::now();
    let session = connector(&with(&url, "connect_timeout=1")).connect("txconnect test").await.unwrap();
    assert_eq!(one(&session, "SELECT 1").await, "1");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let alone = at(&silent.local_addr().unwrap().to_string());
    passes(&with(&alone, "connect_timeout=1"), "no answer within 1 s").await;
}

/// A server that tells its version, and answers every query with `described`.
async fn pretend(version: &'static str, described: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(answer(client, version, described));
        }
    });
    address
}

async fn answer(mut client: TcpStream, version: &str, described: &str) -> Option<()> {
    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind][..], &length, body].concat()
    }
    let ready = message(b'Z', b"I");
    let length = client.read_u32().await.ok()?;
    client.read_exact(&mut vec![0; usize::try_from(length).ok()? - 4]).await.ok()?;
    let parameter = format!("server_version\0{version}\0");
    let hello = [message(b'R', &[0; 4]), message(b'S', parameter.as_bytes()), ready.clone()].concat();
    client.write_all(&hello).await.ok()?;
    while client.read_u8().await.ok()? == b'Q' {
        let length = client.read_u32().await.ok()?;
        client.read_exact(&mut vec![0; usize::try_from(length).ok()? - 4]).await.ok()?;
        let column =
            [&[0, 1][..], b"version\0", &[0; 6], &[0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0]].concat();
        let size = u32::try_from(described.len()).ok()?.to_be_bytes();
        let row = [&[0, 1][..], &size, described.as_bytes()].concat();
        let done = message(b'C', b"SELECT 1\0");
        client
            .write_all(&[message(b'T', &column), message(b'D', &row), done, ready.clone()].concat())
            .await
            .ok()?;
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_cannot_do_it_are_refused_by_name() {
    let plain = |address: SocketAddr| with(&at(&address.to_string()), "sslmode=disable");
    let redshift =
        pretend("8.0.2", "PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC, Redshift 1.0.54052").await;
    lasts(&plain(redshift), "this is Amazon Redshift").await;
    let old = pretend("11.22", "PostgreSQL 11.22 on x86_64-pc-linux-gnu").await;
    lasts(&plain(old), "PostgreSQL 11, which is too old").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_too_long_ends_the_session_and_its_statement() {
    let connector = Connector::new(settings(&server(), Duration::from_secs(1)));
    let session = connector.connect("txconnect impatient").await.unwrap();
    let begun = session.begin("").await.unwrap();
    let failure =
        session.within("sleeping", session.client().batch_execute("SELECT pg_sleep(60)")).await.unwrap_err();
    assert!(failure.to_string().contains("sleeping: PostgreSQL did not answer within 1 s"), "{failure}");
    assert!(!failure.is_certain() && matches!(failure.trouble(), Trouble::Away { .. }));
    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {}", begun.pid);
    until(&support::session().await, &gone, "0").await;
    assert!(session.is_closed());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_ended_a_session_is_named() {
    let session = session().await;
    let begun = session.begin("").await.unwrap();
    run(&support::session().await, &format!("SELECT pg_terminate_backend({})", begun.pid)).await;
    while !session.is_closed() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let failure = session.within("asking", session.client().batch_execute("SELECT 1")).await.unwrap_err();
    assert!(failure.to_string().contains("ended by an administrator"), "{failure}");
    assert!(!session.roll_back().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_are_waited_out() {
    let admin = session().await;
    let role = Schema::unmade().name.replace(' ', "_").to_lowercase();
    run(&admin, &format!("CREATE ROLE {role} LOGIN PASSWORD 'p' CONNECTION LIMIT 1")).await;
    let url = format!("postgresql://{role}:p@{}/postgres", host_and_port());
    let first = connector(&url).connect("txconnect test").await.unwrap();
    passes(&url, "too many are open").await;
    drop(first);
    until(&admin, &format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'"), "0").await;
    run(&admin, &format!("DROP ROLE {role}")).await;
}

/// What a statement with a value of the row in its error means.
async fn data_error(session: &Session, statement: &str) -> DataError {
    let failure = session.within("writing", session.client().batch_execute(statement)).await.unwrap_err();
    assert!(failure.is_certain());
    match failure.trouble() {
        Trouble::Data(data) => {
            let shown = format!("{data:?} {failure} {}", SinkError::from(failure.trouble()));
            assert!(!shown.contains("marker"), "{statement}: {shown}");
            data
        }
        other => panic!("{statement}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_are_explained_without_their_values() {
    let schema = Schema::new().await;
    let session = session().await;
    let quoted = schema.quoted();
    run(
        &session,
        &format!(
            "SET search_path = {quoted}; CREATE TABLE parents (name text PRIMARY KEY); \
             CREATE TABLE rows (name text PRIMARY KEY, kind varchar(3), parent text REFERENCES parents, \
               must text NOT NULL DEFAULT 'x', small smallint CHECK (small <> 13), day date, data jsonb); \
             INSERT INTO rows VALUES ('marker'); \
             CREATE TABLE parts (name text) PARTITION BY LIST (name); \
             CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 IF NEW.name = 'marker' THEN RAISE EXCEPTION 'no % here', NEW.name; END IF; \
                 RAISE EXCEPTION 'no % here', NEW.name USING ERRCODE = '42501'; END $$; \
             CREATE TABLE guarded (name text); \
             CREATE TRIGGER guard BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION complain()"
        ),
    )
    .await;
    for (statement, condition, words) in [
        ("INSERT INTO rows VALUES ('marker')", "unique_violation", "`rows_pkey`"),
        ("INSERT INTO rows (name, must) VALUES ('marker2', NULL)", "not_null_violation", "`must`"),
        (
            "INSERT INTO rows (name, parent) VALUES ('marker2', 'marker3')",
            "foreign_key_violation",
            "`rows_parent_fkey`",
        ),
        ("INSERT INTO rows (name, small) VALUES ('marker2', 13)", "check_violation", "`rows_small_check`"),
        (
            "INSERT INTO rows (name, kind) VALUES ('marker2', 'marker')",
            "string_data_right_truncation",
            "too long",
        ),
        (
            "INSERT INTO rows (name, day) VALUES ('marker2', 'marker'::text::date)",
            "invalid_datetime_format",
            "date",
        ),
        (
            "INSERT INTO rows (name, small) VALUES ('marker2', 'marker'::text::smallint)",
            "invalid_text_representation",
            "type",
        ),
        ("INSERT INTO rows (name, small) VALUES ('marker2', 99999)", "numeric_value_out_of_range", "range"),
        (
            "INSERT INTO rows (name, data) VALUES ('marker2', '{marker'::text::jsonb)",
            "invalid_text_representation",
            "type",
        ),
        ("INSERT INTO parts VALUES ('marker')", "check_violation", "no partition"),
        ("INSERT INTO guarded VALUES ('marker')", "raise_exception", "trigger"),
        ("INSERT INTO guarded VALUES ('marker2')", "raise_exception", "trigger"),
        (
            "INSERT INTO rows (name) SELECT 'marker' || string_agg(md5(n::text), '') FROM generate_series(1, 3000) AS n",
            "program_limit_exceeded",
            "too large",
        ),
    ] {
        let data = data_error(&session, statement).await;
        assert_eq!(data.condition, condition, "{statement}");
        assert!(data.message.contains(words), "{statement}: {}", data.message);
    }
    for statement in ["INSERT INTO nowhere VALUES (1)", "INSERT INTO rows (nothing) VALUES (1)"] {
        let failure = session.within("writing", session.client().batch_execute(statement)).await.unwrap_err();
        assert!(
            matches!(failure.trouble(), Trouble::TableChanged { cause } if cause.contains("does not exist"))
        );
    }
    schema.drop().await;
}
