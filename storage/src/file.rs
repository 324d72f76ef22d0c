//! A file of a cold table, to read.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};

/// A Parquet file in the store of its table.
#[derive(Clone, Debug)]
pub struct File {
    /// The table's own store.
    pub store: Arc<dyn ObjectStore>,
    /// Where it lies there.
    pub path: Path,
    /// Its size in bytes.
    pub size: u64,
}

impl AsyncFileReader for File {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        self.store.get_range(&self.path, range).map_err(ParquetError::from).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { Ok(self.store.get_ranges(&self.path, &ranges).await?) }.boxed()
    }

    fn get_metadata<'a>(&'a mut self, _: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let size = self.size;
            Ok(Arc::new(ParquetMetaDataReader::new().load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

/// How many rows of a file take about so many bytes of memory: at least one, and no more than `most`.
pub fn rows_of(file: &ParquetMetaData, bytes: usize, most: usize) -> usize {
    let sum =
        |of: fn(&RowGroupMetaData) -> i64| file.row_groups().iter().map(|group| usize::try_from(of(group)).unwrap_or(0)).sum::<usize>();
    let each = sum(RowGroupMetaData::total_byte_size) / sum(RowGroupMetaData::num_rows).max(1);
    (bytes / each.max(1)).clamp(1, most)
}
