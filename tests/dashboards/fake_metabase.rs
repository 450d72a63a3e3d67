//! As much of Metabase's API as `deploy/metabase/provision.py` calls, after its documentation
//! (<https://www.metabase.com/docs/latest/api>), and strict about what it is sent.

use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

pub(crate) const SETUP_TOKEN: &str = "the-setup-token";
const SESSION: &str = "the-session";

/// The form in which questions are given back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Metabase before version 57.
    Native,
    /// Metabase since then.
    Stages,
}

/// What the server holds. Ids are positions from 1.
pub(crate) struct Content {
    pub(crate) form: Form,
    /// How many health checks fail before the first that does not.
    pub(crate) starting: usize,
    /// How many questions fail, for their tables are missing, before the first that does not.
    pub(crate) unanswered: usize,
    /// Whether the database is reached when it is added.
    pub(crate) database_answers: bool,
    pub(crate) user: Option<(String, String)>,
    pub(crate) databases: Vec<Value>,
    pub(crate) collections: Vec<Value>,
    pub(crate) cards: Vec<Value>,
    pub(crate) dashboards: Vec<Value>,
    /// Calls that changed something, as `METHOD path`.
    pub(crate) changes: Vec<String>,
    /// The ids of the questions that have answered.
    pub(crate) answered: Vec<usize>,
}

impl Content {
    pub(crate) fn new() -> Self {
        Self {
            form: Form::Native,
            starting: 0,
            unanswered: 0,
            database_answers: true,
            user: None,
            databases: Vec::new(),
            collections: Vec::new(),
            cards: Vec::new(),
            dashboards: Vec::new(),
            changes: Vec::new(),
            answered: Vec::new(),
        }
    }
}

pub(crate) type Shared = Arc<Mutex<Content>>;
type Answer = Result<Json<Value>, (StatusCode, Json<Value>)>;

/// Serves `content` until the test ends; its address.
pub(crate) async fn serve(content: Content) -> (String, Shared) {
    let shared = Arc::new(Mutex::new(content));
    let inside = Router::new()
        .route("/api/database", get(list_databases).post(add_database))
        .route("/api/database/{id}", get(one_database).put(change_database))
        .route("/api/collection", get(list_collections).post(add_collection))
        .route("/api/collection/{id}/items", get(list_items))
        .route("/api/card", post(add_card))
        .route("/api/card/{id}", get(one_card).put(change_card))
        .route("/api/card/{id}/query", post(ask))
        .route("/api/dashboard", post(add_dashboard))
        .route("/api/dashboard/{id}", get(one_dashboard).put(change_dashboard))
        .layer(from_fn_with_state(Arc::clone(&shared), with_session));
    let router = Router::new()
        .route("/api/health", get(health))
        .route("/api/session/properties", get(properties))
        .route("/api/setup", post(set_up))
        .route("/api/session", post(log_in))
        .merge(inside)
        .with_state(Arc::clone(&shared));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, shared)
}

/// Lets in who has logged in, and writes down what changes something.
async fn with_session(
    State(shared): State<Shared>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    if headers.get("x-metabase-session").is_none_or(|session| session != SESSION) {
        return (StatusCode::UNAUTHORIZED, "Unauthenticated").into_response();
    }
    if request.method() != Method::GET && !request.uri().path().ends_with("/query") {
        let change = format!("{} {}", request.method(), request.uri().path());
        shared.lock().unwrap().changes.push(change);
    }
    next.run(request).await
}

fn bad(field: &str) -> (StatusCode, Json<Value>) {
    (StatusCode::BAD_REQUEST, Json(json!({ "errors": { field: "value must be something else." } })))
}

/// The fields of `body`, all of which must be there, with text in them.
fn texts<'b>(body: &'b Value, fields: &[&'static str]) -> Result<Vec<&'b str>, (StatusCode, Json<Value>)> {
    fields
        .iter()
        .map(|field| body[*field].as_str().filter(|text| !text.is_empty()).ok_or_else(|| bad(field)))
        .collect()
}

async fn health(State(shared): State<Shared>) -> (StatusCode, Json<Value>) {
    let mut content = shared.lock().unwrap();
    if content.starting > 0 {
        content.starting -= 1;
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "initializing", "progress": 0.5 })));
    }
    (StatusCode::OK, Json(json!({ "status": "ok" })))
}

async fn properties(State(shared): State<Shared>) -> Json<Value> {
    let has_user = shared.lock().unwrap().user.is_some();
    let token = if has_user { Value::Null } else { json!(SETUP_TOKEN) };
    Json(json!({ "setup-token": token, "has-user-setup": has_user }))
}

async fn set_up(State(shared): State<Shared>, Json(body): Json<Value>) -> Answer {
    let mut content = shared.lock().unwrap();
    if body["token"] != SETUP_TOKEN {
        return Err(bad("token"));
    }
    if content.user.is_some() {
        return Err((StatusCode::FORBIDDEN, Json(json!("The /api/setup route can only be used once."))));
    }
    texts(&body["prefs"], &["site_name"])?;
    let user = texts(&body["user"], &["email", "password"])?;
    content.user = Some((user[0].to_owned(), user[1].to_owned()));
    content.changes.push("POST /api/setup".to_owned());
    Ok(Json(json!({ "id": SESSION })))
}

async fn log_in(State(shared): State<Shared>, Json(body): Json<Value>) -> Answer {
    let user = texts(&body, &["username", "password"])?;
    let known = shared.lock().unwrap().user.clone();
    if known == Some((user[0].to_owned(), user[1].to_owned())) {
        return Ok(Json(json!({ "id": SESSION })));
    }
    let errors = json!({ "errors": { "password": "did not match stored password" } });
    Err((StatusCode::UNAUTHORIZED, Json(errors)))
}

async fn list_databases(State(shared): State<Shared>) -> Json<Value> {
    let databases = &shared.lock().unwrap().databases;
    Json(json!({ "data": databases, "total": databases.len() }))
}

async fn add_database(State(shared): State<Shared>, Json(body): Json<Value>) -> Answer {
    let mut content = shared.lock().unwrap();
    if !content.database_answers {
        let answer = json!({ "message": "Looks like the Host is incorrect.\nsecond line", "details": body["details"] });
        return Err((StatusCode::BAD_REQUEST, Json(answer)));
    }
    texts(&body, &["name", "engine"])?;
    texts(&body["details"], &["host", "dbname", "user", "password"])?;
    let mut database = body;
    database["id"] = json!(content.databases.len() + 1);
    database["details"]["password"] = json!("**MetabasePass**");
    content.databases.push(database.clone());
    Ok(Json(database))
}

async fn one_database(State(shared): State<Shared>, Path(id): Path<usize>) -> Json<Value> {
    Json(shared.lock().unwrap().databases[id - 1].clone())
}

async fn change_database(
    State(shared): State<Shared>,
    Path(id): Path<usize>,
    Json(body): Json<Value>,
) -> Answer {
    let mut content = shared.lock().unwrap();
    content.databases[id - 1]["details"] = body["details"].clone();
    Ok(Json(content.databases[id - 1].clone()))
}

async fn list_collections(State(shared): State<Shared>) -> Json<Value> {
    let mut collections = vec![json!({ "id": "root", "name": "Our analytics" })];
    collections.extend(shared.lock().unwrap().collections.iter().cloned());
    Json(json!(collections))
}

async fn add_collection(State(shared): State<Shared>, Json(body): Json<Value>) -> Answer {
    texts(&body, &["name"])?;
    let mut content = shared.lock().unwrap();
    let collection = json!({ "id": content.collections.len() + 1, "name": body["name"], "archived": false });
    content.collections.push(collection.clone());
    Ok(Json(collection))
}

#[derive(serde::Deserialize)]
struct ItemQuery {
    models: String,
}

async fn list_items(
    State(shared): State<Shared>,
    Path(id): Path<usize>,
    Query(query): Query<ItemQuery>,
) -> Json<Value> {
    let content = shared.lock().unwrap();
    let things = if query.models == "card" { &content.cards } else { &content.dashboards };
    let items: Vec<Value> = things
        .iter()
        .filter(|thing| thing["collection_id"] == id)
        .map(|thing| json!({ "id": thing["id"], "name": thing["name"], "model": query.models }))
        .collect();
    Json(json!({ "total": items.len(), "data": items }))
}

fn checked_card(body: &Value) -> Result<(), (StatusCode, Json<Value>)> {
    texts(body, &["name", "display", "description"])?;
    if !body["visualization_settings"].is_object() {
        return Err(bad("visualization_settings"));
    }
    let query = &body["dataset_query"];
    if query["type"] != "native" || !query["database"].is_u64() {
        return Err(bad("dataset_query"));
    }
    texts(&query["native"], &["query"])?;
    Ok(())
}

async fn add_card(State(shared): State<Shared>, Json(body): Json<Value>) -> Answer {
    checked_card(&body)?;
    let mut content = shared.lock().unwrap();
    let mut card = body;
    card["id"] = json!(content.cards.len() + 1);
    content.cards.push(card.clone());
    Ok(Json(card))
}

async fn one_card(State(shared): State<Shared>, Path(id): Path<usize>) -> Json<Value> {
    let content = shared.lock().unwrap();
    let mut card = content.cards[id - 1].clone();
    if content.form == Form::Stages {
        let query = &card["dataset_query"];
        card["dataset_query"] = json!({
            "lib/type": "mbql/query",
            "database": query["database"],
            "stages": [{ "lib/type": "mbql.stage/native", "native": query["native"]["query"] }],
        });
    }
    Json(card)
}

async fn change_card(State(shared): State<Shared>, Path(id): Path<usize>, Json(body): Json<Value>) -> Answer {
    checked_card(&body)?;
    let mut content = shared.lock().unwrap();
    for (field, value) in body.as_object().unwrap() {
        content.cards[id - 1][field] = value.clone();
    }
    Ok(Json(content.cards[id - 1].clone()))
}

async fn ask(State(shared): State<Shared>, Path(id): Path<usize>) -> (StatusCode, Json<Value>) {
    let mut content = shared.lock().unwrap();
    let answer = if content.unanswered > 0 {
        content.unanswered -= 1;
        json!({ "status": "failed", "error": "ERROR: relation \"cash_ins\" does not exist\n  Position: 9" })
    } else {
        content.answered.push(id);
        json!({ "status": "completed", "row_count": 1 })
    };
    // A failed question is accepted too.
    (StatusCode::ACCEPTED, Json(answer))
}

async fn add_dashboard(State(shared): State<Shared>, Json(body): Json<Value>) -> Answer {
    texts(&body, &["name"])?;
    let mut content = shared.lock().unwrap();
    let mut dashboard = body;
    dashboard["id"] = json!(content.dashboards.len() + 1);
    dashboard["dashcards"] = json!([]);
    content.dashboards.push(dashboard.clone());
    Ok(Json(dashboard))
}

async fn one_dashboard(State(shared): State<Shared>, Path(id): Path<usize>) -> Json<Value> {
    Json(shared.lock().unwrap().dashboards[id - 1].clone())
}

/// Replaces the cards of the dashboard: an id below 0 stands for a new one.
async fn change_dashboard(
    State(shared): State<Shared>,
    Path(id): Path<usize>,
    Json(body): Json<Value>,
) -> Answer {
    let mut cards = body["dashcards"].as_array().ok_or_else(|| bad("dashcards"))?.clone();
    let mut ids = Vec::new();
    for card in &cards {
        let numbers = ["id", "row", "col", "size_x", "size_y"];
        if numbers.iter().any(|field| !card[*field].is_i64()) || ids.contains(&card["id"]) {
            return Err(bad("dashcards"));
        }
        ids.push(card["id"].clone());
    }
    let new = cards.iter_mut().filter(|card| card["id"].as_i64().is_some_and(|id| id < 0));
    for (id, card) in (100..).zip(new) {
        card["id"] = json!(id);
    }
    let mut content = shared.lock().unwrap();
    content.dashboards[id - 1]["dashcards"] = json!(cards);
    Ok(Json(content.dashboards[id - 1].clone()))
}
