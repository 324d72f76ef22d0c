//! The folder or bucket that holds the cold tables.
//!
//! Both are one [`ObjectStore`] to everybody else. A commit must create its log entry only if nobody else has:
//! folders do that with hard links, buckets with conditional puts, which every S3-compatible store that is
//! fit for this offers (AWS, MinIO, SeaweedFS, Ceph).
//!
//! A bucket wants a tokio runtime of several threads: in one of a single thread Delta reads logs on threads of its own,
//! which leave connections behind that end with them.

use std::net::IpAddr;
use std::path::Path as FilePath;
use std::sync::{Arc, Once};

use config::settings;
use deltalake_core::logstore::{LogStore, LogStoreFactory, ObjectStoreRef, StorageConfig, default_logstore, logstore_factories};
use deltalake_core::{DeltaResult, DeltaTable, DeltaTableBuilder, DeltaTableError};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error as ObjectError, ObjectStore};
use tracing::warn;
use url::{Host, Url};

use crate::{StorageError, say};

/// How many tables are looked at at the same time.
const PARALLEL: usize = 16;

/// The place of all cold tables.
#[derive(Clone, Debug)]
pub struct ColdStore {
    store: ObjectStoreRef,
    root: Url,
}

impl ColdStore {
    /// The store at a folder or an `s3://` address, with the credentials and endpoint of the settings. Nothing is
    /// read or made yet.
    ///
    /// # Errors
    /// An address that is neither, or options that contradict each other.
    pub fn open(address: &str, options: &settings::ColdStore) -> Result<Self, StorageError> {
        if address.starts_with("s3://") {
            return open_bucket(address, options);
        }
        let folder = match address.strip_prefix("file://") {
            Some(path) => path,
            None if address.contains("://") => {
                return Err(StorageError::new(address, "is neither a folder nor an S3 address", "write a path, or `s3://bucket/prefix`"));
            }
            None => address,
        };
        let unusable = |what: String| StorageError::new(address, what, "write the path of a folder that this user may write");
        if folder.is_empty() {
            return Err(unusable("the path is empty".into()));
        }
        let absolute = std::path::absolute(FilePath::new(folder)).map_err(|e| unusable(e.to_string()))?;
        let root = Url::from_directory_path(&absolute).map_err(|()| unusable("the path cannot be written as a URL".into()))?;
        Ok(ColdStore { store: Arc::new(LocalFileSystem::new()), root })
    }

    /// The store that the settings name.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn from_settings(settings: &settings::Settings) -> Result<Self, StorageError> {
        Self::open(&settings.cold_url(), &settings.cold)
    }

    /// The address of a table, for messages.
    pub fn address(&self, table: &str) -> String {
        self.table_url(table).to_string()
    }

    /// The handle of a table, without reading anything: it may not exist.
    ///
    /// # Errors
    /// A table name that cannot be part of an address.
    pub fn handle(&self, table: &str) -> Result<DeltaTable, StorageError> {
        let url = self.table_url(table);
        DeltaTableBuilder::from_url(url.clone())
            .and_then(|builder| builder.with_storage_backend(self.store.clone(), url).build())
            .map_err(|e| self.error(table, &e))
    }

    /// A table at its newest version, or `None` if there is none of this name.
    ///
    /// # Errors
    /// The store cannot be reached or refuses us, or the table's log is damaged.
    pub async fn load(&self, table: &str) -> Result<Option<DeltaTable>, StorageError> {
        let mut handle = self.handle(table)?;
        if !self.exists(table).await? {
            return Ok(None);
        }
        match handle.load().await {
            Ok(()) => Ok(Some(handle)),
            Err(DeltaTableError::NotATable(_) | DeltaTableError::InvalidVersion(_)) => Ok(None),
            Err(e) => Err(self.error(table, &e)),
        }
    }

    /// The names of the tables that exist, sorted.
    ///
    /// # Errors
    /// The store cannot be reached or refuses us.
    pub async fn tables(&self) -> Result<Vec<String>, StorageError> {
        let root = self.path("");
        let folders = match self.store.list_with_delimiter(Some(&root)).await {
            Ok(listing) => listing.common_prefixes,
            Err(ObjectError::NotFound { .. }) => Vec::new(),
            Err(e) => return Err(self.error("", &e)),
        };
        let names = folders.iter().filter_map(|folder| folder.filename().map(str::to_owned)).collect::<Vec<_>>();
        let mut tables: Vec<String> = stream::iter(names)
            .map(|name| async move { Ok::<_, StorageError>(self.exists(&name).await?.then_some(name)) })
            .buffer_unordered(PARALLEL)
            .try_filter_map(|name| async move { Ok(name) })
            .try_collect()
            .await?;
        tables.sort_unstable();
        Ok(tables)
    }

    /// Whether a table has a log.
    async fn exists(&self, table: &str) -> Result<bool, StorageError> {
        match self.store.list(Some(&self.path(table).join("_delta_log"))).next().await {
            None | Some(Err(ObjectError::NotFound { .. })) => Ok(false),
            Some(Ok(_)) => Ok(true),
            Some(Err(e)) => Err(self.error(table, &e)),
        }
    }

    fn table_url(&self, table: &str) -> Url {
        let mut url = self.root.clone();
        url.path_segments_mut().expect("folders and buckets have paths").pop_if_empty().push(table).push("");
        url
    }

    /// Where a table lies in the object store; the root for an empty name.
    fn path(&self, table: &str) -> Path {
        let root = Path::from_url_path(self.root.path()).unwrap_or_default();
        if table.is_empty() { root } else { root.join(table) }
    }

    /// What an error at a table means to the user.
    pub fn error(&self, table: &str, error: &(dyn std::error::Error + 'static)) -> StorageError {
        let place = if table.is_empty() { self.root.to_string() } else { self.address(table) };
        let what = say(error);
        let remedy = if self.root.scheme() != "s3" {
            "check that the folder exists and that this user may read and write it"
        } else if ["AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403", "Unauthorized"]
            .iter()
            .any(|w| what.contains(w))
        {
            "check `cold.access_key` and `cold.secret_key`, and that they may list, read, write and delete in the bucket"
        } else if what.contains("NoSuchBucket") {
            "create the bucket, or correct `cold.url`"
        } else {
            "check `cold.endpoint` and `cold.region`, and that the store can be reached from here"
        };
        StorageError::new(place, what, remedy)
    }
}

fn open_bucket(address: &str, options: &settings::ColdStore) -> Result<ColdStore, StorageError> {
    let bad = |what: String| StorageError::new(address, what, "write `s3://bucket/prefix`, and the rest in `[cold]` of the settings");
    let mut root = Url::parse(address).map_err(|e| bad(e.to_string()))?;
    let bucket = root.host_str().filter(|b| !b.is_empty()).ok_or_else(|| bad("names no bucket".into()))?.to_owned();
    if !root.username().is_empty() || root.query().is_some() {
        return Err(bad("carries more than a bucket and a prefix".into()));
    }
    if !root.path().ends_with('/') {
        root.set_path(&format!("{}/", root.path()));
    }
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch);
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    } else if std::env::var_os("AWS_REGION").is_none() && std::env::var_os("AWS_DEFAULT_REGION").is_none() {
        builder = builder.with_region("us-east-1");
    }
    if let Some(endpoint) = &options.endpoint {
        let url =
            Url::parse(endpoint).map_err(|e| StorageError::new(endpoint, e.to_string(), "write `cold.endpoint` as `https://host:port`"))?;
        if url.scheme() == "http" && !is_loopback(&url) {
            warn!(%endpoint, "keys and rows travel unencrypted to the cold store; use https");
        }
        builder = builder.with_endpoint(endpoint.trim_end_matches('/')).with_allow_http(url.scheme() == "http");
    }
    match (&options.access_key, &options.secret_key) {
        (Some(key), Some(secret)) => builder = builder.with_access_key_id(key.expose()).with_secret_access_key(secret.expose()),
        (None, None) => {}
        _ => {
            return Err(StorageError::new(
                address,
                "only one half of the credentials is set",
                "set both `cold.access_key` and `cold.secret_key`, or neither",
            ));
        }
    }
    let store = builder.build().map_err(|e| bad(say(&e)))?;
    register_s3();
    Ok(ColdStore { store: Arc::new(store), root })
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    }
}

/// The log of a table in a bucket is kept as in a folder: conditional puts make them alike.
struct BucketLog;

impl LogStoreFactory for BucketLog {
    fn with_options(
        &self,
        prefixed: ObjectStoreRef,
        root: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        Ok(default_logstore(prefixed, root, location, options))
    }
}

/// Delta looks log stores up by scheme in a table of the process, and knows only folders by itself.
fn register_s3() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(logstore_factories().insert(Url::parse("s3://").expect("a constant"), Arc::new(BucketLog))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_no_store_are_refused_with_a_remedy() {
        let options = settings::ColdStore::default();
        for address in ["gs://bucket/x", "s3://", "", "s3://user@bucket/x"] {
            let error = ColdStore::open(address, &options).expect_err(address);
            assert!(!error.remedy.is_empty(), "{error}");
        }
    }

    #[test]
    fn half_credentials_are_refused() {
        let options = settings::ColdStore { access_key: Some(config::values::Secret::new("key")), ..Default::default() };
        assert!(ColdStore::open("s3://bucket/x", &options).expect_err("no secret").remedy.contains("secret_key"));
    }

    #[test]
    fn a_bucket_behind_tls_opens() {
        let options = settings::ColdStore { endpoint: Some("https://s3.example.com".into()), ..Default::default() };
        let store = ColdStore::open("s3://bucket/market data", &options).expect("opens without connecting");
        assert_eq!(store.address("trades"), "s3://bucket/market%20data/trades/");
        assert_eq!(store.path("trades").as_ref(), "market data/trades");
    }

    #[tokio::test]
    async fn a_folder_that_does_not_exist_holds_no_tables() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = ColdStore::open(&format!("{}/none", folder.path().display()), &settings::ColdStore::default()).expect("opens");
        assert_eq!(store.tables().await.expect("lists"), Vec::<String>::new());
        assert!(store.load("trades").await.expect("loads").is_none());
    }
}
