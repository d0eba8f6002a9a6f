//! The queue as it was between two commits, read while the relay goes on writing.
//!
//! The database keeps the pages of a snapshot until it is dropped: the file grows meanwhile. When the writer closes the
//! database, after a failure or at the end, reading the snapshot fails.

use std::fmt;
use std::io;

use redb::{Key, ReadTransaction, ReadableTable as _, TableDefinition, Value};

use super::database::{
    BOOTS, CORRESPONDENTS, DEVICES, FILE_ID, META, PRINTS, PROBE, QUEUE, catch_redb_panic,
};
use super::row_stream::{Encoder, Row, Table};

pub struct Snapshot(ReadTransaction);

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

impl Snapshot {
    pub(super) fn new(transaction: ReadTransaction) -> Self {
        Self(transaction)
    }

    /// Passes all rows to `send`, as chunks of a stream for [`super::copy::NewQueue`]. Returns the number of rows.
    ///
    /// # Errors
    ///
    /// The queue cannot be read any more, or `send` has failed.
    pub fn send(&self, send: impl FnMut(Vec<u8>) -> io::Result<()>) -> Result<u64, redb::Error> {
        catch_redb_panic(|| {
            let mut to = Encoder::new(send);
            self.table(Table::Meta, META, &mut to, |name| *name != FILE_ID)?;
            self.table(Table::Boots, BOOTS, &mut to, |_| true)?;
            self.table(Table::Devices, DEVICES, &mut to, |_| true)?;
            self.table(Table::Correspondents, CORRESPONDENTS, &mut to, |_| true)?;
            self.table(Table::Queue, QUEUE, &mut to, |_| true)?;
            self.table(Table::Prints, PRINTS, &mut to, |key| *key != PROBE)?;
            Ok(to.finish()?)
        })
    }

    fn table<K: Key + 'static, V: Value + 'static, F: FnMut(Vec<u8>) -> io::Result<()>>(
        &self,
        table: Table,
        definition: TableDefinition<'_, K, V>,
        to: &mut Encoder<F>,
        is_copied: impl Fn(&K::SelfType<'_>) -> bool,
    ) -> Result<(), redb::Error> {
        for entry in self.0.open_table(definition)?.iter()? {
            let (key, value) = entry?;
            let (key, value) = (key.value(), value.value());
            if is_copied(&key) {
                let (key, value) = (K::as_bytes(&key), V::as_bytes(&value));
                to.row(Row { table, key: key.as_ref(), value: value.as_ref() })?;
            }
        }
        Ok(())
    }
}
