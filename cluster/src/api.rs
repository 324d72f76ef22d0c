//! How a node is asked: HTTP with JSON under `/api/v1`.
//!
//! The routes are one table, [`ROUTES`], from which both the server and its OpenAPI document are made, so that the
//! document cannot leave one out. Every answer is JSON; one that is no success is a [`Problem`].
//!
//! Any node of a cluster answers: one that does not lead passes a request on to the one that does, and its answer back.
//! Where no node leads now, the answer is a problem that says so and can be retried: nothing was done.
//!
//! There is no authentication yet, so a node listens on the loopback alone, and refuses requests whose `Host` is not the
//! loopback: a web page that a browser on this machine shows cannot reach it under a name of its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use axum::{Json, Router};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::agent::{Agent, Answerer, NodeView, PipelineView, Refusal};
use crate::definition::{Difference, Spec};
use crate::host::Order;
use crate::keeper::Status;
use crate::log::Lines;
use crate::remote;
use crate::store::StoreError;

/// Lines of a log that are answered unless said otherwise.
pub const LOG_LINES: usize = 100;
/// The most bytes of a request that is passed on, or that starts a process.
const MOST_BYTES: usize = 16 << 20;
/// The header of a request that was passed on: once is enough.
const FORWARDED: &str = "marketprism-forwarded";

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// What happened.
    pub error: String,
    /// What to do about it.
    pub remedy: String,
    /// The errors of a pipeline: objects with `file`, `line`, `column`, `message`, `help` and more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<Value>,
    /// What an upgrade that was not accepted would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    /// Whether nothing was done, and the same request may soon succeed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retry: bool,
}

/// Numbers of worker threads and processes. What is left out stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rescale {
    /// Worker threads of each process, from 1 to 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Processes, from 1 to 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<usize>,
}

/// A route of the API.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// `get`, `post`, `put` or `delete`.
    pub method: &'static str,
    /// The path, with `{name}` for a pipeline's name.
    pub path: &'static str,
    /// What it does.
    summary: &'static str,
    /// Query parameters: name, type, meaning.
    query: &'static [(&'static str, &'static str, &'static str)],
    body: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// The status of success.
    status: u16,
    answer: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// The statuses of problems.
    problems: &'static [u16],
    handler: fn() -> MethodRouter<Arc<Agent>>,
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const LIST: &str = "/api/v1/pipelines";
const ONE: &str = "/api/v1/pipelines/{name}";

/// Everything that is served.
pub const ROUTES: &[Route] = &[
    Route {
        method: "get",
        path: LIST,
        summary: "How all pipelines are",
        query: &[],
        body: None,
        status: 200,
        answer: Some(schema::<Vec<Status>>),
        problems: &[503],
        handler: || get(list),
    },
    Route {
        method: "post",
        path: LIST,
        summary: "Accept a new pipeline and start it",
        query: &[],
        body: Some(schema::<Spec>),
        status: 201,
        answer: Some(schema::<Status>),
        problems: &[400, 409, 422, 503],
        handler: || post(submit),
    },
    Route {
        method: "get",
        path: ONE,
        summary: "What a pipeline is, without its text",
        query: &[],
        body: None,
        status: 200,
        answer: Some(schema::<PipelineView>),
        problems: &[404, 503],
        handler: || get(view),
    },
    Route {
        method: "put",
        path: ONE,
        summary: "Upgrade a pipeline: a new process takes over from the one that runs",
        query: &[("accept", "boolean", "Agree to lose what nodes that change or go have gathered")],
        body: Some(schema::<Spec>),
        status: 200,
        answer: Some(schema::<Status>),
        problems: &[400, 404, 409, 422, 503],
        handler: || put(upgrade),
    },
    Route {
        method: "delete",
        path: ONE,
        summary: "Forget a pipeline of which nothing runs: its definition, positions and logs; tables stay",
        query: &[],
        body: None,
        status: 204,
        answer: None,
        problems: &[404, 409, 503],
        handler: || delete(remove),
    },
    Route {
        method: "post",
        path: "/api/v1/pipelines/{name}/compare",
        summary: "What an upgrade would do; touches nothing",
        query: &[],
        body: Some(schema::<Spec>),
        status: 200,
        answer: Some(schema::<Difference>),
        problems: &[400, 404, 422, 503],
        handler: || post(compare),
    },
    Route {
        method: "get",
        path: "/api/v1/pipelines/{name}/status",
        summary: "How a pipeline is",
        query: &[],
        body: None,
        status: 200,
        answer: Some(schema::<Status>),
        problems: &[404, 503],
        handler: || get(status),
    },
    Route {
        method: "post",
        path: "/api/v1/pipelines/{name}/start",
        summary: "Start a pipeline that was stopped, has failed or has finished",
        query: &[],
        body: None,
        status: 200,
        answer: Some(schema::<Status>),
        problems: &[404, 503],
        handler: || post(start),
    },
    Route {
        method: "post",
        path: "/api/v1/pipelines/{name}/stop",
        summary: "Let a pipeline drain; answered at once",
        query: &[("now", "boolean", "Kill it instead")],
        body: None,
        status: 200,
        answer: Some(schema::<Status>),
        problems: &[400, 404, 503],
        handler: || post(stop),
    },
    Route {
        method: "post",
        path: "/api/v1/pipelines/{name}/rescale",
        summary: "Give a pipeline other numbers of worker threads and processes",
        query: &[],
        body: Some(schema::<Rescale>),
        status: 200,
        answer: Some(schema::<Status>),
        problems: &[400, 404, 409, 422, 503],
        handler: || post(rescale),
    },
    Route {
        method: "get",
        path: "/api/v1/pipelines/{name}/logs",
        summary: "The last lines that a pipeline's processes logged",
        query: &[
            ("lines", "integer", "At most so many, 100 unless said otherwise; 1000 are kept"),
            ("after", "integer", "Only those after the line of this number: `last` of an earlier answer"),
        ],
        body: None,
        status: 200,
        answer: Some(schema::<Lines>),
        problems: &[400, 404, 503],
        handler: || get(logs),
    },
    Route {
        method: "get",
        path: "/api/v1/nodes",
        summary: "The nodes of the cluster",
        query: &[],
        body: None,
        status: 200,
        answer: Some(schema::<Vec<NodeView>>),
        problems: &[],
        handler: || get(nodes),
    },
    Route {
        method: "post",
        path: remote::PATH,
        summary: "For the leader: start a process on this node; the connection becomes its pipes",
        query: &[],
        body: Some(schema::<Order>),
        status: 101,
        answer: None,
        problems: &[400],
        handler: || post(process),
    },
    Route {
        method: "get",
        path: "/api/v1/openapi.json",
        summary: "This document",
        query: &[],
        body: None,
        status: 200,
        answer: Some(schema::<serde_json::Map<String, Value>>),
        problems: &[],
        handler: || get(document),
    },
];

type Asked = State<Arc<Agent>>;

async fn list(State(agent): Asked) -> Result<Json<Vec<Status>>, Refusal> {
    Ok(Json(agent.list().await?))
}

async fn submit(State(agent): Asked, body: Bytes) -> Result<(StatusCode, Json<Status>), Refusal> {
    Ok((StatusCode::CREATED, Json(agent.submit(read(&body)?).await?)))
}

async fn view(State(agent): Asked, Path(name): Path<String>) -> Result<Json<PipelineView>, Refusal> {
    Ok(Json(agent.view(&name).await?))
}

async fn upgrade(State(agent): Asked, Path(name): Path<String>, RawQuery(query): RawQuery, body: Bytes) -> Result<Json<Status>, Refusal> {
    let accept = parameters(query.as_deref(), &["accept"])?[0].unwrap_or(0) == 1;
    Ok(Json(agent.upgrade(&name, read(&body)?, accept).await?))
}

async fn remove(State(agent): Asked, Path(name): Path<String>) -> Result<StatusCode, Refusal> {
    agent.delete(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn compare(State(agent): Asked, Path(name): Path<String>, body: Bytes) -> Result<Json<Difference>, Refusal> {
    Ok(Json(agent.compare(&name, &read(&body)?).await?))
}

async fn status(State(agent): Asked, Path(name): Path<String>) -> Result<Json<Status>, Refusal> {
    Ok(Json(agent.status(&name).await?))
}

async fn start(State(agent): Asked, Path(name): Path<String>) -> Result<Json<Status>, Refusal> {
    Ok(Json(agent.start(&name).await?))
}

async fn stop(State(agent): Asked, Path(name): Path<String>, RawQuery(query): RawQuery) -> Result<Json<Status>, Refusal> {
    let now = parameters(query.as_deref(), &["now"])?[0].unwrap_or(0) == 1;
    Ok(Json(agent.stop(&name, now).await?))
}

async fn rescale(State(agent): Asked, Path(name): Path<String>, body: Bytes) -> Result<Json<Status>, Refusal> {
    let Rescale { workers, processes } = read(&body)?;
    Ok(Json(agent.rescale(&name, workers, processes).await?))
}

async fn logs(State(agent): Asked, Path(name): Path<String>, RawQuery(query): RawQuery) -> Result<Json<Lines>, Refusal> {
    let parameters = parameters(query.as_deref(), &["lines", "after"])?;
    let most = parameters[0].map_or(LOG_LINES, |n| usize::try_from(n).unwrap_or(usize::MAX));
    Ok(Json(agent.logs(&name, most, parameters[1].unwrap_or(0)).await?))
}

async fn nodes(State(agent): Asked) -> Json<Vec<NodeView>> {
    Json(agent.nodes().await)
}

async fn process(State(agent): Asked, request: Request) -> Result<Response, Refusal> {
    let (mut parts, body) = request.into_parts();
    let wanted = parts.headers.get(header::UPGRADE).is_some_and(|protocol| protocol == remote::PROTOCOL);
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>().filter(|_| wanted).ok_or_else(|| Refusal::Bad {
        error: format!("the request does not ask for an upgrade to `{}`", remote::PROTOCOL),
        remedy: "nodes ask each other so; see that all are of one version".into(),
    })?;
    let bytes = to_bytes(body, MOST_BYTES).await.map_err(unread)?;
    let order: Order = read(&bytes)?;
    tokio::spawn(async move {
        // Where the connection does not become one of lines, nothing is started.
        if let Ok(stream) = upgrade.await {
            remote::serve(hyper_util::rt::TokioIo::new(stream), agent.start_process(order)).await;
        }
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, remote::PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

fn unread(error: axum::Error) -> Refusal {
    Refusal::Bad { error: format!("the body cannot be read: {error}"), remedy: "send it again; it may have 16 MB".into() }
}

async fn document() -> Json<Value> {
    Json(openapi())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::Bad {
        error: format!("the body is not what was expected: {error}"),
        remedy: "see /api/v1/openapi.json for the body of this request".into(),
    })
}

/// The values of query parameters that are numbers or, as 1 and 0, truths; `None` for those that are not given.
fn parameters(query: Option<&str>, names: &[&str]) -> Result<Vec<Option<u64>>, Refusal> {
    let mut values = vec![None; names.len()];
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, "true"));
        let number = match value {
            "true" => Some(1),
            "false" => Some(0),
            digits => digits.parse().ok(),
        };
        match (names.iter().position(|n| *n == name), number) {
            (Some(at), Some(number)) => values[at] = Some(number),
            _ => {
                let remedy = if names.is_empty() { "there are none".into() } else { format!("there are: {}", names.join(", ")) };
                return Err(Refusal::Bad { error: format!("`{part}` is no query parameter of this route"), remedy });
            }
        }
    }
    Ok(values)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = self.to_string();
        let (status, remedy) = match &self {
            Refusal::Bad { remedy, .. } => (StatusCode::BAD_REQUEST, remedy.clone()),
            Refusal::Rejected(_) => (StatusCode::UNPROCESSABLE_ENTITY, "correct the pipeline and send it again".into()),
            Refusal::Exists(name) => {
                (StatusCode::CONFLICT, format!("`marketprism upgrade FILE` changes it, `marketprism delete {name}` makes room"))
            }
            Refusal::Missing(_) => (StatusCode::NOT_FOUND, "`marketprism list` shows those that there are".into()),
            Refusal::Runs { name, .. } => (StatusCode::CONFLICT, format!("stop it first: `marketprism stop {name}`")),
            Refusal::Loses { .. } => (StatusCode::CONFLICT, "repeat it with `--accept` if that is meant".into()),
            Refusal::NoLeader(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "repeat the command in some seconds; if none leads then, see that the nodes and the NATS servers run".into(),
            ),
            Refusal::Unknown(_) => (StatusCode::SERVICE_UNAVAILABLE, "see whether it was done, then repeat the command".into()),
            Refusal::NotShared(_) => (
                StatusCode::CONFLICT,
                "set `[checkpoints] url = \"s3://...\"` in the `marketprism.toml` beside the pipeline or of the nodes".into(),
            ),
            Refusal::Store(StoreError::Conflict { .. }) => (StatusCode::CONFLICT, "repeat the command".into()),
            Refusal::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "see the node's own log".into()),
            Refusal::Kept { .. } => (StatusCode::BAD_GATEWAY, "see to it that it can, and repeat the command".into()),
            Refusal::Io { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "see that the folder is the node's and the disk has room, then repeat".into())
            }
        };
        let retry = matches!(self, Refusal::NoLeader(_));
        let (diagnostics, difference) = match self {
            Refusal::Rejected(rejected) => (Some(rejected.diagnostics), None),
            Refusal::Loses { difference, .. } => (None, Some(difference)),
            _ => (None, None),
        };
        (status, Json(Problem { error, remedy, diagnostics, difference, retry })).into_response()
    }
}

fn problem(status: StatusCode, error: impl Into<String>, remedy: &str) -> Response {
    let problem = Problem { error: error.into(), remedy: remedy.to_owned(), diagnostics: None, difference: None, retry: false };
    (status, Json(problem)).into_response()
}

/// Refuses requests that were not meant for the loopback.
async fn loopback_only(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(is_loopback) {
        return next.run(request).await;
    }
    problem(
        StatusCode::FORBIDDEN,
        format!("the node does not answer as `{}`", host.unwrap_or_default()),
        "ask it as `localhost` or `127.0.0.1`: it serves this machine alone",
    )
}

/// Passes a request on to the leader, unless this node leads or the request is for it alone.
async fn to_the_leader(State(agent): Asked, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let own = path == remote::PATH || path == "/api/v1/openapi.json" || !path.starts_with("/api/v1/");
    match agent.answerer() {
        _ if own => next.run(request).await,
        Answerer::Here => next.run(request).await,
        // What this node sees of the others is worth most when none leads.
        Answerer::Nobody if path == "/api/v1/nodes" => next.run(request).await,
        Answerer::Nobody => Refusal::NoLeader("no node leads the cluster now".into()).into_response(),
        Answerer::Other(leader) if request.headers().contains_key(FORWARDED) => {
            Refusal::NoLeader(format!("node `{}` was taken for the leader, but `{}` leads", agent.name(), leader.node)).into_response()
        }
        Answerer::Other(leader) => {
            let gone = agent.no_longer_led_by(&leader);
            let reading = *request.method() == Method::GET;
            tokio::select! {
                answer = forward(agent.http(), &leader.address, request) => answer.unwrap_or_else(|failure| match failure {
                    Unforwarded::Request(refusal) => refusal,
                    Unforwarded::Unsent(why) => Refusal::NoLeader(format!("node `{}`, which leads, cannot be reached: {why}", leader.node)),
                    Unforwarded::Unanswered(why) => lost(&leader.node, &why, reading),
                }.into_response()),
                () = gone => lost(&leader.node, "it does not lead any more", reading).into_response(),
            }
        }
    }
}

/// What is known when a leader does not answer: of a request that reads, that it can be repeated.
fn lost(node: &str, why: &str, reading: bool) -> Refusal {
    let what = format!("node `{node}`, which led, did not answer: {why}");
    if reading { Refusal::NoLeader(what) } else { Refusal::Unknown(what) }
}

/// Why a request was not passed on.
enum Unforwarded {
    /// It cannot be read.
    Request(Refusal),
    /// The leader has not got it.
    Unsent(String),
    /// The leader may have got it.
    Unanswered(String),
}

async fn forward(http: &reqwest::Client, address: &str, request: Request) -> Result<Response, Unforwarded> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MOST_BYTES).await.map_err(|error| Unforwarded::Request(unread(error)))?;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut asked = http.request(parts.method, format!("http://{address}{path}")).header(FORWARDED, "1").body(body);
    if let Some(of) = parts.headers.get(header::CONTENT_TYPE) {
        asked = asked.header(header::CONTENT_TYPE, of);
    }
    let unanswered = |error: reqwest::Error| {
        let why = crate::client::reason(&error);
        if error.is_connect() { Unforwarded::Unsent(why) } else { Unforwarded::Unanswered(why) }
    };
    let answer = asked.send().await.map_err(unanswered)?;
    let status = answer.status();
    let of = answer.headers().get(header::CONTENT_TYPE).cloned();
    let body = answer.bytes().await.map_err(unanswered)?;
    let mut response = (status, Body::from(body)).into_response();
    if let Some(of) = of {
        response.headers_mut().insert(header::CONTENT_TYPE, of);
    }
    Ok(response)
}

/// Whether a `Host` header names the loopback, with any port.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Why a node cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is not an address.
    #[error("`{0}` is no address to listen on; set `node.listen` to an IP address and a port, e.g. `127.0.0.1:7410`")]
    Address(String),
    /// The address can be reached from other machines.
    #[error("the node serves this machine alone, and {0} can be reached from others; set `node.listen` to e.g. `127.0.0.1:7410`")]
    Open(SocketAddr),
    /// The system refuses.
    #[error("the node cannot listen on {address}: {error}; set `node.listen` to another address, or stop what listens there")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
}

/// Listens on an address of the loopback; port 0 is any that is free.
///
/// # Errors
/// The address is none, or not of the loopback, or taken.
pub async fn listen(address: &str) -> Result<TcpListener, ListenError> {
    let address: SocketAddr = address.parse().map_err(|_| ListenError::Address(address.to_owned()))?;
    if !address.ip().is_loopback() {
        return Err(ListenError::Open(address));
    }
    TcpListener::bind(address).await.map_err(|error| ListenError::Refused { address, error })
}

/// Answers requests until it is dropped.
///
/// # Errors
/// The system refuses to accept connections.
pub async fn serve(agent: Arc<Agent>, listener: TcpListener) -> std::io::Result<()> {
    let unknown =
        || async { problem(StatusCode::NOT_FOUND, "there is no such route", "GET /api/v1/openapi.json lists those that there are") };
    let wrong_method = || async {
        problem(StatusCode::METHOD_NOT_ALLOWED, "the route has no such method", "GET /api/v1/openapi.json lists those that it has")
    };
    let router = ROUTES.iter().fold(Router::new(), |router, route| router.route(route.path, (route.handler)()));
    let router = router
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(agent.clone(), to_the_leader))
        .layer(middleware::from_fn(loopback_only));
    axum::serve(listener, router.with_state(agent)).await
}

/// The OpenAPI 3.1 document of [`ROUTES`].
pub fn openapi() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let problem_schema = schema::<Problem>(&mut generator);
    let content = |schema: &Schema| json!({ "application/json": { "schema": schema } });
    let mut paths = serde_json::Map::new();
    for route in ROUTES {
        let mut parameters = Vec::new();
        if route.path.contains("{name}") {
            parameters.push(json!({ "name": "name", "in": "path", "required": true, "schema": { "type": "string" } }));
        }
        for (name, ty, meaning) in route.query {
            parameters.push(json!({ "name": name, "in": "query", "description": meaning, "schema": { "type": ty } }));
        }
        let mut answer = json!({ "description": "Success" });
        if let Some(of) = route.answer {
            answer["content"] = content(&of(&mut generator));
        }
        let mut answers = serde_json::Map::from_iter([(route.status.to_string(), answer)]);
        for status in route.problems.iter().chain(&[403]) {
            let reason = StatusCode::from_u16(*status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Problem");
            answers.insert(status.to_string(), json!({ "description": reason, "content": content(&problem_schema) }));
        }
        let mut operation = json!({ "summary": route.summary, "parameters": parameters, "responses": answers });
        if let Some(of) = route.body {
            operation["requestBody"] = json!({ "required": true, "content": content(&of(&mut generator)) });
        }
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "MarketPrism", "version": env!("CARGO_PKG_VERSION"), "description": "Pipelines on nodes." },
        "paths": paths,
        "components": { "schemas": generator.take_definitions(true) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_the_loopback_or_is_not() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1:7410", "127.1.2.3", "[::1]:7410", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "example.com", "localhost.example.com:7410", "127.0.0.1.example.com", "10.0.0.1", "[::2]:1", "0.0.0.0:1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn the_document_refers_to_what_it_has() {
        let document = openapi();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"").skip(1) {
            let at = reference.split('"').next().unwrap();
            assert!(document.pointer(at.strip_prefix('#').unwrap()).is_some(), "{at} leads nowhere");
        }
        assert!(text.contains("#/components/schemas/Status"));
    }

    #[test]
    fn a_parameter_that_is_unknown_or_no_number_is_refused() {
        assert_eq!(parameters(Some("lines=5&after=7"), &["lines", "after"]).unwrap(), [Some(5), Some(7)]);
        assert_eq!(parameters(Some("now"), &["now"]).unwrap(), [Some(1)]);
        assert_eq!(parameters(None, &["now"]).unwrap(), [None]);
        for query in ["line=5", "lines=many", "lines=-1"] {
            assert!(parameters(Some(query), &["lines"]).is_err(), "{query}");
        }
    }
}
