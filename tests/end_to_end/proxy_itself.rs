//! The proxy of the tests: a lost commit is really lost, or really carried out.

use crate::proxy::LostCommit;
use crate::support::{Tables, eventually};

#[test]
fn a_lost_commit_is_carried_out_or_not_as_was_asked_for() {
    for (how, rows) in [(LostCommit::BeforeTheServer, 0), (LostCommit::AfterTheServer, 1)] {
        let (tables, proxy) = Tables::behind_proxy();
        tables.run("CREATE SCHEMA {schema}; CREATE TABLE {schema}.rows (id int)");
        let insert = format!("BEGIN; INSERT INTO {} VALUES (1); COMMIT", tables.named("rows"));
        proxy.lose_commits(how, 1);
        assert!(tables.by_the_proxy(&proxy).try_run(&insert).is_err(), "{how:?}");
        assert_eq!(proxy.commits_lost(), 1);
        assert_eq!(tables.count("rows"), rows, "{how:?}");
        assert!(tables.by_the_proxy(&proxy).try_run(&insert).is_ok(), "{how:?}: only one was to be lost");
    }
}

#[test]
fn a_proxy_that_refuses_or_is_cut_lets_nothing_through_until_it_may() {
    let (tables, proxy) = Tables::behind_proxy();
    let way = tables.by_the_proxy(&proxy);
    assert!(way.try_run("SELECT 1").is_ok());
    proxy.refuse(true);
    assert!(way.try_run("SELECT 1").is_err());
    proxy.refuse(false);
    assert!(way.try_run("SELECT 1").is_ok());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| way.try_run("SELECT pg_sleep(60)"));
        // Until it is made there is nothing to cut.
        eventually("the connection is cut", || {
            proxy.cut();
            waiting.is_finished().then_some(())
        });
        assert!(waiting.join().unwrap().is_err());
    });
}
