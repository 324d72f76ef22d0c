//! Asks a node, as the commands of the program do.

use std::time::Duration;

use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::agent::{NodeView, PipelineView};
use crate::api::{Problem, Rescale};
use crate::definition::{Difference, Spec};
use crate::keeper::Status;
use crate::log::Lines;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a request is repeated while no node leads.
const LEADERLESS: Duration = Duration::from_secs(15);
/// The pause before it is repeated.
const PAUSE: Duration = Duration::from_millis(250);

/// Why a node did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No node answers there.
    #[error("no node answers at {url}: {reason}; start one with `marketprism node`, or name another with `--api`")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The node refused.
    #[error("{}{}", .0.error, if .0.remedy.is_empty() { String::new() } else { format!("; {}", .0.remedy) })]
    Refused(Box<Problem>),
    /// What answers is not a node of this version.
    #[error("what answers at {url} is no node of this version: {reason}; see that node and command are of the same version")]
    Strange {
        /// Where it was asked.
        url: String,
        /// What it answered.
        reason: String,
    },
}

/// A node, to be asked.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    /// A node at an address, e.g. `http://127.0.0.1:7410`; the scheme may be left out.
    ///
    /// # Errors
    /// HTTP cannot be used at all.
    pub fn new(address: &str) -> Result<Client, ClientError> {
        let base = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let base = base.trim_end_matches('/').to_owned();
        // A node serves its own machine: there is no proxy on the way.
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
        let http = http.map_err(|error| ClientError::Unreachable { url: base.clone(), reason: reason(&error) })?;
        Ok(Client { http, base })
    }

    /// Asks, again and again while the cluster chooses another leader.
    async fn ask(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Vec<u8>, ClientError> {
        let begun = Instant::now();
        loop {
            match self.ask_once(method.clone(), path, body.clone()).await {
                Err(ClientError::Refused(problem)) if problem.retry && begun.elapsed() < LEADERLESS => sleep(PAUSE).await,
                result => return result,
            }
        }
    }

    async fn ask_once(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Vec<u8>, ClientError> {
        let mut request = self.http.request(method, format!("{}/api/v1/{path}", self.base));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let unreachable = |error: &reqwest::Error| ClientError::Unreachable { url: self.base.clone(), reason: reason(error) };
        let response = request.send().await.map_err(|e| unreachable(&e))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|e| unreachable(&e))?;
        if status.is_success() {
            return Ok(bytes.to_vec());
        }
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => Err(ClientError::Refused(Box::new(problem))),
            Err(_) => Err(ClientError::Strange { url: self.base.clone(), reason: format!("it answered {status}") }),
        }
    }

    async fn read<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<T, ClientError> {
        let bytes = self.ask(method, path, body).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Strange { url: self.base.clone(), reason: error.to_string() })
    }

    /// Submits a new pipeline.
    ///
    /// # Errors
    /// See [`ClientError`]; so for all that follow.
    pub async fn submit(&self, spec: &Spec) -> Result<Status, ClientError> {
        self.read(Method::POST, "pipelines", Some(json(spec))).await
    }

    /// How all pipelines are.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list(&self) -> Result<Vec<Status>, ClientError> {
        self.read(Method::GET, "pipelines", None).await
    }

    /// What a pipeline is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn view(&self, name: &str) -> Result<PipelineView, ClientError> {
        self.read(Method::GET, &of(name, ""), None).await
    }

    /// How a pipeline is.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self, name: &str) -> Result<Status, ClientError> {
        self.read(Method::GET, &of(name, "/status"), None).await
    }

    /// Stops a pipeline, draining it unless it is to stop at once. Returns before it has.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn stop(&self, name: &str, now: bool) -> Result<Status, ClientError> {
        self.read(Method::POST, &of(name, if now { "/stop?now=true" } else { "/stop" }), None).await
    }

    /// Starts a pipeline that does not run.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn start(&self, name: &str) -> Result<Status, ClientError> {
        self.read(Method::POST, &of(name, "/start"), None).await
    }

    /// Gives a pipeline other numbers of workers and processes.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn rescale(&self, name: &str, how: &Rescale) -> Result<Status, ClientError> {
        self.read(Method::POST, &of(name, "/rescale"), Some(json(how))).await
    }

    /// What an upgrade would do.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn compare(&self, name: &str, spec: &Spec) -> Result<Difference, ClientError> {
        self.read(Method::POST, &of(name, "/compare"), Some(json(spec))).await
    }

    /// Upgrades a pipeline.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upgrade(&self, name: &str, spec: &Spec, accept: bool) -> Result<Status, ClientError> {
        self.read(Method::PUT, &of(name, if accept { "?accept=true" } else { "" }), Some(json(spec))).await
    }

    /// Forgets a pipeline of which nothing runs.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&self, name: &str) -> Result<(), ClientError> {
        self.ask(Method::DELETE, &of(name, ""), None).await.map(drop)
    }

    /// The last lines of a pipeline's log, and of those only the ones after number `after`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn logs(&self, name: &str, most: usize, after: u64) -> Result<Lines, ClientError> {
        self.read(Method::GET, &of(name, &format!("/logs?lines={most}&after={after}")), None).await
    }

    /// The nodes of the cluster.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn nodes(&self) -> Result<Vec<NodeView>, ClientError> {
        self.read(Method::GET, "nodes", None).await
    }
}

/// The path of a pipeline, and of something of it.
fn of(name: &str, rest: &str) -> String {
    // What a user typed: what is not of a name must not become another path.
    let name: String = name
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() || b == b'_' || b == b'-' { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    format!("pipelines/{name}{rest}")
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("what is asked is JSON")
}

/// The innermost reason of an error: the outer ones only repeat the address.
pub(crate) fn reason(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
