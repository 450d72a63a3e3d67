//! `deploy/metabase/provision.py` against a server that behaves like Metabase. Metabase itself is in no package
//! registry; what this cannot show is whether its API is as it is documented.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::fake_metabase::{Content, Form, Shared, serve};
use crate::manifest::{cards, in_repository, sql};

const PASSWORD: &str = "first-user-1";
const DATABASE_PASSWORD: &str = "database-secret";

/// Runs the script with the manifest in `dashboards`. The time-out is only against hanging.
async fn provision(address: &str, dashboards: &Path, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new("python3");
    command
        .arg(in_repository("deploy/metabase/provision.py"))
        .arg(dashboards.join("transactions.json"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*")
        .env("METABASE_URL", address)
        .env("METABASE_EMAIL", "admin@example.com")
        .env("METABASE_PASSWORD", PASSWORD)
        .env("METABASE_TIMEOUT", "120")
        .env("DATABASE_HOST", "postgres")
        .env("DATABASE_NAME", "transactions")
        .env("DATABASE_USER", "dashboards")
        .env("DATABASE_PASSWORD", DATABASE_PASSWORD)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_mins(4), command.output());
    output.await.expect("provision.py hangs").expect("python3 is needed to try provision.py")
}

fn said(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains(PASSWORD) && !said.contains(DATABASE_PASSWORD), "a password is told: {said}");
    said.into_owned()
}

fn succeeded(output: &Output) -> String {
    let said = said(output);
    assert!(output.status.success(), "{said}");
    said
}

fn failed(output: &Output) -> String {
    let said = said(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("Traceback"), "{said}");
    said
}

fn changes(shared: &Shared) -> Vec<String> {
    std::mem::take(&mut shared.lock().unwrap().changes)
}

/// A copy of the dashboards that a test may change.
fn dashboards() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(in_repository("dashboards")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

#[tokio::test]
async fn an_empty_metabase_gets_user_database_questions_and_dashboard() {
    let (address, shared) = serve(Content { starting: 1, unanswered: 1, ..Content::new() }).await;
    succeeded(&provision(&address, &in_repository("dashboards"), &[]).await);

    let content = shared.lock().unwrap();
    assert_eq!(content.user, Some(("admin@example.com".to_owned(), PASSWORD.to_owned())));
    assert_eq!(content.databases.len(), 1);
    assert_eq!(content.databases[0]["details"]["dbname"], "transactions");
    let cards = cards();
    assert_eq!(content.cards.len(), cards.len());
    for (card, made) in cards.iter().zip(&content.cards) {
        assert_eq!(made["name"], card["name"]);
        assert_eq!(made["visualization_settings"], card["settings"]);
        let wanted = json!({
            "type": "native",
            "database": 1,
            "native": { "query": sql(card["sql"].as_str().unwrap()) },
        });
        assert_eq!(made["dataset_query"], wanted);
    }
    let places: Vec<[&Value; 5]> = content.dashboards[0]["dashcards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|card| ["card_id", "col", "row", "size_x", "size_y"].map(|field| &card[field]))
        .collect();
    let numbers: Vec<Value> = (1..=cards.len()).map(Value::from).collect();
    let wanted: Vec<[&Value; 5]> = cards
        .iter()
        .zip(&numbers)
        .map(|(card, number)| {
            let [column, row, width, height] =
                ["column", "row", "width", "height"].map(|field| &card["place"][field]);
            [number, column, row, width, height]
        })
        .collect();
    assert_eq!(places, wanted);
    assert_eq!(content.answered, (1..=cards.len()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_second_run_changes_nothing() {
    for form in [Form::Native, Form::Stages] {
        let (address, shared) = serve(Content { form, ..Content::new() }).await;
        succeeded(&provision(&address, &in_repository("dashboards"), &[]).await);
        assert!(!changes(&shared).is_empty());
        let said = succeeded(&provision(&address, &in_repository("dashboards"), &[]).await);
        assert_eq!(changes(&shared), Vec::<String>::new());
        assert!(said.contains("dashboard Transactions: there already"), "{said}");
    }
}

#[tokio::test]
async fn what_has_changed_is_changed_and_what_people_have_added_stays() {
    let (address, shared) = serve(Content::new()).await;
    let folder = dashboards();
    succeeded(&provision(&address, folder.path(), &[]).await);
    changes(&shared);
    let added = json!({ "id": 7, "card_id": null, "row": 50, "col": 0, "size_x": 4, "size_y": 2 });
    {
        let mut content = shared.lock().unwrap();
        content.dashboards[0]["dashcards"].as_array_mut().unwrap().push(added.clone());
        // Somebody has moved a card.
        content.dashboards[0]["dashcards"][1]["row"] = json!(60);
    }
    fs::write(folder.path().join("amounts.sql"), "SELECT 1").unwrap();

    succeeded(&provision(&address, folder.path(), &[("DATABASE_HOST", "elsewhere")]).await);
    let changed = changes(&shared);
    assert_eq!(changed, ["PUT /api/database/1", "PUT /api/card/2", "PUT /api/dashboard/1"]);
    let content = shared.lock().unwrap();
    assert_eq!(content.databases[0]["details"]["host"], "elsewhere");
    assert_eq!(content.cards[1]["dataset_query"]["native"]["query"], "SELECT 1");
    let dashcards = content.dashboards[0]["dashcards"].as_array().unwrap();
    assert_eq!(dashcards.len(), cards().len() + 1);
    assert_eq!(dashcards[1]["row"], cards()[1]["place"]["row"]);
    assert_eq!(dashcards.last(), Some(&added));
}

#[tokio::test]
async fn what_cannot_be_done_is_told_with_the_way_out() {
    let user = Some(("admin@example.com".to_owned(), "another password".to_owned()));
    let (address, shared) = serve(Content { user, ..Content::new() }).await;
    let said = failed(&provision(&address, &in_repository("dashboards"), &[]).await);
    assert!(said.contains("METABASE_EMAIL and METABASE_PASSWORD"), "{said}");
    assert_eq!(changes(&shared), Vec::<String>::new());

    let (address, _) = serve(Content { database_answers: false, ..Content::new() }).await;
    let said = failed(&provision(&address, &in_repository("dashboards"), &[]).await);
    assert!(said.contains("status 400: Looks like the Host is incorrect."), "{said}");

    let empty = [("METABASE_EMAIL", ""), ("DATABASE_HOST", "")];
    let said = failed(&provision(&address, &in_repository("dashboards"), &empty).await);
    assert!(said.contains("not set in the environment: METABASE_EMAIL, DATABASE_HOST"), "{said}");
}

#[tokio::test]
async fn a_question_that_never_answers_ends_the_run() {
    let (address, shared) = serve(Content { unanswered: usize::MAX, ..Content::new() }).await;
    let said = failed(&provision(&address, &in_repository("dashboards"), &[("METABASE_TIMEOUT", "0")]).await);
    assert!(said.contains("question Cash-outs by state does not answer"), "{said}");
    assert!(said.contains("relation \"cash_ins\" does not exist"), "{said}");
    assert!(!said.contains("Position: 9"), "{said}");
    // Everything is there all the same: the next run finds it.
    assert_eq!(shared.lock().unwrap().dashboards.len(), 1);

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = format!("http://{nobody}");
    let said = failed(&provision(&address, &in_repository("dashboards"), &[("METABASE_TIMEOUT", "0")]).await);
    assert!(said.contains("does not answer"), "{said}");
}
