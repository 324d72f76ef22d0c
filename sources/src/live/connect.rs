//! Sockets to venues: TCP, through a proxy where one is given, TLS where the address says `wss`, WebSocket.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use storage::say;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use tower_service::Service;

/// An open connection.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The largest message: beyond it the connection is given up.
const LARGEST: usize = 32 << 20;
/// Bytes read from a socket at once. So many are zeroed before each read, which is what most of a short frame would cost.
const READ: usize = 4 << 10;

/// TLS with the system's certificates, which take a while to read.
static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    // Those that cannot be read are none; without any, every venue is refused by name.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the protocol's versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(tls)
});

/// What opens connections to one host.
#[derive(Debug)]
pub(super) struct Dialer {
    proxy: Option<String>,
    patience: Duration,
    pause: Duration,
    /// When the next one may be opened.
    next: Mutex<Instant>,
}

impl Dialer {
    /// What opens connections through a proxy or directly, with a pause between two, and waits so long for each.
    pub(super) fn new(proxy: Option<&str>, patience: Duration, pause: Duration) -> Dialer {
        Dialer { proxy: proxy.map(str::to_owned), patience, pause, next: Mutex::new(Instant::now()) }
    }

    /// Opens a connection, in its turn.
    ///
    /// # Errors
    /// Says in words why there is none.
    pub(super) async fn open(&self, address: &str) -> Result<Socket, String> {
        {
            // Whoever waits here waits for its turn, too.
            let mut next = self.next.lock().await;
            sleep_until(*next).await;
            *next = Instant::now() + self.pause;
        }
        timeout(self.patience, self.connect(address)).await.map_err(|_| "the venue does not answer in time".to_owned())?
    }

    async fn connect(&self, address: &str) -> Result<Socket, String> {
        let url = url::Url::parse(address).map_err(|error| format!("{address}: {error}"))?;
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(format!("{address} names no host"));
        };
        let stream = match &self.proxy {
            None => TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?,
            Some(proxy) => {
                let proxy = proxy.parse().map_err(|error| format!("the proxy's address: {error}"))?;
                let target = format!("https://{host}:{port}").parse().map_err(|error| format!("{address}: {error}"))?;
                let tunnel = Tunnel::new(proxy, HttpConnector::new()).call(target).await;
                tunnel.map_err(|error| format!("the proxy: {}", say(&error)))?.into_inner()
            }
        };
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let limits = WebSocketConfig::default().max_message_size(Some(LARGEST)).max_frame_size(Some(LARGEST)).read_buffer_size(READ);
        let opened = client_async_tls_with_config(address, stream, Some(limits), Some(Connector::Rustls(TLS.clone()))).await;
        opened.map(|(socket, _)| socket).map_err(|error| say(&error))
    }
}
