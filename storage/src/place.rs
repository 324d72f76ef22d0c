//! A folder or a bucket, by its address.
//!
//! Both are one object store to everybody else. Something must often be created only if nobody else has: folders do
//! that with hard links, buckets with conditional puts, which every S3-compatible store that is fit for this offers (AWS,
//! MinIO, SeaweedFS, Ceph).

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use config::settings;
use deltalake_core::logstore::ObjectStoreRef;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{Error as ObjectError, RetryConfig};
use tracing::warn;
use url::{Host, Url};

use crate::{StorageError, say};

/// How often a request to a bucket is made again without a word. A store that fails for longer is for who asked: it says so, and
/// waits if it can.
const RETRIES: usize = 4;
/// The longest that this may take.
const RETRYING: Duration = Duration::from_secs(10);

/// A folder or a prefix of a bucket.
#[derive(Clone, Debug)]
pub struct Place {
    store: ObjectStoreRef,
    root: Url,
}

impl Place {
    /// The place of a folder or an `s3://` address, with the credentials and endpoint of the settings. Nothing is
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
        Ok(Place { store: Arc::new(LocalFileSystem::new()), root })
    }

    /// The store that it is in: paths in it are those of [`Place::path`].
    pub fn store(&self) -> &ObjectStoreRef {
        &self.store
    }

    /// The address.
    pub fn root(&self) -> &Url {
        &self.root
    }

    /// Where something of this name lies in the store; the place itself for an empty name.
    pub fn path(&self, name: &str) -> Path {
        let root = Path::from_url_path(self.root.path()).unwrap_or_default();
        name.split('/').filter(|part| !part.is_empty()).fold(root, |path, part| path.join(part))
    }

    /// The address of what has this name; of the place itself for an empty one.
    pub fn url(&self, name: &str) -> Url {
        let mut url = self.root.clone();
        if !name.is_empty() {
            url.path_segments_mut().expect("folders and buckets have paths").pop_if_empty().extend(name.split('/')).push("");
        }
        url
    }

    /// What an error at something of this name means to the user.
    pub fn error(&self, name: &str, error: &(dyn Error + 'static)) -> StorageError {
        let place = self.url(name).to_string();
        let what = say(error);
        let remedy = if causes(error).any(|error| error.downcast_ref().is_some_and(is_full)) {
            "make room where it lies"
        } else if self.root.scheme() != "s3" {
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
        StorageError { transient: may_pass(error), place, what, remedy: remedy.into() }
    }
}

/// Whether the same may succeed later without anybody's doing.
fn may_pass(error: &(dyn Error + 'static)) -> bool {
    let mut store = false;
    for error in causes(error) {
        // What the system says is the innermost, and says it best.
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.raw_os_error().is_some()
        {
            return room_or_line(error);
        }
        if let Some(error) = error.downcast_ref::<ObjectError>() {
            store = matches!(
                error,
                ObjectError::Generic { .. }
                    | ObjectError::JoinError { .. }
                    | ObjectError::Precondition { .. }
                    | ObjectError::AlreadyExists { .. }
            );
        }
    }
    store
}

/// Whether what the system refused may succeed later: there is no room, or no connection. A path that is not there or may not
/// be written stays so until somebody changes it.
fn room_or_line(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    !matches!(
        error.kind(),
        Kind::PermissionDenied
            | Kind::NotFound
            | Kind::NotADirectory
            | Kind::IsADirectory
            | Kind::ReadOnlyFilesystem
            | Kind::InvalidFilename
            | Kind::InvalidInput
            | Kind::Unsupported
            | Kind::FileTooLarge
    )
}

/// Whether a bucket does not let us in.
pub fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    let refuses = |error: &ObjectError| matches!(error, ObjectError::PermissionDenied { .. } | ObjectError::Unauthenticated { .. });
    causes(error).any(|error| error.downcast_ref().is_some_and(refuses))
}

/// An error and what it comes from.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        // These two keep to themselves what they are made of.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).map(|inner| inner as &(dyn Error + 'static));
        let kernel = || match error.downcast_ref()? {
            delta_kernel::Error::ObjectStore(inner) => Some(inner as &(dyn Error + 'static)),
            _ => None,
        };
        wrapped.or_else(kernel).or_else(|| (**error).source())
    })
}

/// Whether there is no room on a disk.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn open_bucket(address: &str, options: &settings::ColdStore) -> Result<Place, StorageError> {
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
    builder = builder.with_retry(RetryConfig { max_retries: RETRIES, retry_timeout: RETRYING, ..RetryConfig::default() });
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    } else if std::env::var_os("AWS_REGION").is_none() && std::env::var_os("AWS_DEFAULT_REGION").is_none() {
        builder = builder.with_region("us-east-1");
    }
    if let Some(endpoint) = &options.endpoint {
        let url =
            Url::parse(endpoint).map_err(|e| StorageError::new(endpoint, e.to_string(), "write `cold.endpoint` as `https://host:port`"))?;
        if url.scheme() == "http" && !is_loopback(&url) {
            warn!(%endpoint, "keys and rows travel unencrypted to the store; use https");
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
    Ok(Place { store: Arc::new(store), root })
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use deltalake_core::DeltaTableError;
    use parquet::errors::ParquetError;

    use super::*;

    #[test]
    fn a_store_that_is_away_or_full_is_told_from_one_that_refuses() {
        let generic = |source: Box<dyn Error + Send + Sync>| ObjectError::Generic { store: "S3", source };
        let system = |kind: i32| may_pass(&generic(io::Error::from_raw_os_error(kind).into()));
        // ENOSPC, ECONNREFUSED and EIO; EACCES, ENOTDIR and EROFS.
        assert_eq!([28, 111, 5, 13, 20, 30].map(system), [true, true, true, false, false, false]);
        assert!(may_pass(&generic("503 Service Unavailable".into())));
        let refused = ObjectError::PermissionDenied { path: "p".into(), source: "403 Forbidden".into() };
        let missing = ObjectError::NotFound { path: "p".into(), source: "NoSuchBucket".into() };
        assert!(!may_pass(&refused) && !may_pass(&missing));
        assert!(is_refusal(&refused) && !is_refusal(&missing));
        let refused = || ObjectError::PermissionDenied { path: "p".into(), source: "403 Forbidden".into() };
        let away = || generic("503 Service Unavailable".into());
        for wrap in [
            |error| DeltaTableError::from(ParquetError::from(io::Error::other(error))),
            |error| DeltaTableError::KernelError(delta_kernel::Error::ObjectStore(error)),
        ] {
            assert!(is_refusal(&wrap(refused())) && may_pass(&wrap(away())) && !may_pass(&wrap(refused())), "{}", wrap(away()));
        }
        assert!(!may_pass(&io::Error::other("not of the system")));
    }

    #[test]
    fn addresses_that_are_no_store_are_refused_with_a_remedy() {
        let options = settings::ColdStore::default();
        for address in ["gs://bucket/x", "s3://", "", "s3://user@bucket/x"] {
            let error = Place::open(address, &options).expect_err(address);
            assert!(!error.remedy.is_empty(), "{error}");
        }
    }

    #[test]
    fn half_credentials_are_refused() {
        let options = settings::ColdStore { access_key: Some(config::values::Secret::new("key")), ..Default::default() };
        assert!(Place::open("s3://bucket/x", &options).expect_err("no secret").remedy.contains("secret_key"));
    }

    #[test]
    fn a_bucket_behind_tls_opens() {
        let options = settings::ColdStore { endpoint: Some("https://s3.example.com".into()), ..Default::default() };
        let place = Place::open("s3://bucket/market data", &options).expect("opens without connecting");
        assert_eq!(place.url("a/trades").as_str(), "s3://bucket/market%20data/a/trades/");
        assert_eq!(place.path("a/trades").as_ref(), "market data/a/trades");
    }
}
