//! The cold tables, in a folder or a bucket.
//!
//! A bucket wants a tokio runtime of several threads: in one of a single thread Delta reads logs on threads of its own,
//! which leave connections behind that end with them.

use std::sync::{Arc, Once};

use config::settings;
use deltalake_core::logstore::{LogStore, LogStoreFactory, ObjectStoreRef, StorageConfig, default_logstore, logstore_factories};
use deltalake_core::{DeltaResult, DeltaTable, DeltaTableBuilder, DeltaTableError};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{Error as ObjectError, ObjectStore};
use url::Url;

use crate::{Place, StorageError};

/// How many tables are looked at at the same time.
const PARALLEL: usize = 16;

/// The place of all cold tables.
#[derive(Clone, Debug)]
pub struct ColdStore {
    place: Place,
}

impl ColdStore {
    /// The store at a place.
    ///
    /// # Errors
    /// As for [`Place::open`].
    pub fn open(address: &str, options: &settings::ColdStore) -> Result<Self, StorageError> {
        register_s3();
        Ok(ColdStore { place: Place::open(address, options)? })
    }

    /// The store that the settings name.
    ///
    /// # Errors
    /// As for [`Place::open`].
    pub fn from_settings(settings: &settings::Settings) -> Result<Self, StorageError> {
        Self::open(&settings.cold_url(), &settings.cold)
    }

    /// The address of a table, for messages.
    pub fn address(&self, table: &str) -> String {
        self.place.url(table).to_string()
    }

    /// The handle of a table, without reading anything: it may not exist.
    ///
    /// # Errors
    /// A table name that cannot be part of an address.
    pub fn handle(&self, table: &str) -> Result<DeltaTable, StorageError> {
        let url = self.place.url(table);
        DeltaTableBuilder::from_url(url.clone())
            .and_then(|builder| builder.with_storage_backend(self.place.store().clone(), url).build())
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
        let root = self.place.path("");
        let folders = match self.place.store().list_with_delimiter(Some(&root)).await {
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
        match self.place.store().list(Some(&self.place.path(table).join("_delta_log"))).next().await {
            None | Some(Err(ObjectError::NotFound { .. })) => Ok(false),
            Some(Ok(_)) => Ok(true),
            Some(Err(e)) => Err(self.error(table, &e)),
        }
    }

    /// What an error at a table means to the user.
    pub fn error(&self, table: &str, error: &(dyn std::error::Error + 'static)) -> StorageError {
        self.place.error(table, error)
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

    #[tokio::test]
    async fn a_folder_that_does_not_exist_holds_no_tables() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = ColdStore::open(&format!("{}/none", folder.path().display()), &settings::ColdStore::default()).expect("opens");
        assert_eq!(store.tables().await.expect("lists"), Vec::<String>::new());
        assert!(store.load("trades").await.expect("loads").is_none());
    }
}
