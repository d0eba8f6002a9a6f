//! A snapshot of the queue as a stream of bytes, from the relay to `sealpost backup`.
//!
//! A head, then for each row its table (1 byte), the bytes of its key (1) and value (4, little-endian), key and value; at the
//! end table 0, the number of rows (8) and a checksum of all before it (8). A stream that was cut has no end.

use std::io;

use xxhash_rust::xxh3::Xxh3;

const HEAD: &[u8] = b"sealpost rows 1\n";

/// Bytes that are collected before they are sent. A chunk is longer by one row at most.
const CHUNK: usize = 64 * 1024;

/// In front of key and value: table and lengths.
const ROW_HEAD: usize = 6;
/// The number of rows, and the checksum.
const TAIL: usize = 16;

/// The longest value that is believed, far above any message.
const LONGEST_VALUE: usize = 256 * 1024 * 1024;

/// The table of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Table {
    Meta = 1,
    Boots = 2,
    Devices = 3,
    Correspondents = 4,
    Queue = 5,
    Prints = 6,
}

impl Table {
    const ALL: [Self; 6] =
        [Self::Meta, Self::Boots, Self::Devices, Self::Correspondents, Self::Queue, Self::Prints];

    fn of(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| *table as u8 == tag)
    }
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub table: Table,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// Writes a stream to `send`, which gets one chunk after the other.
pub(super) struct Encoder<F> {
    send: F,
    chunk: Vec<u8>,
    checksum: Xxh3,
    rows: u64,
}

impl<F: FnMut(Vec<u8>) -> io::Result<()>> Encoder<F> {
    pub fn new(send: F) -> Self {
        Self { send, chunk: HEAD.to_vec(), checksum: Xxh3::new(), rows: 0 }
    }

    /// # Errors
    ///
    /// `send` has failed, or no such row can be in a queue.
    pub fn row(&mut self, row: Row<'_>) -> io::Result<()> {
        let key = u8::try_from(row.key.len()).map_err(io::Error::other)?;
        let value = u32::try_from(row.value.len()).map_err(io::Error::other)?;
        self.chunk.extend_from_slice(&[row.table as u8, key]);
        self.chunk.extend_from_slice(&value.to_le_bytes());
        self.chunk.extend_from_slice(row.key);
        self.chunk.extend_from_slice(row.value);
        self.rows += 1;
        if self.chunk.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Ends the stream. Returns the number of rows.
    ///
    /// # Errors
    ///
    /// `send` has failed.
    pub fn finish(mut self) -> io::Result<u64> {
        self.chunk.push(0);
        self.chunk.extend_from_slice(&self.rows.to_le_bytes());
        self.checksum.update(&self.chunk);
        self.chunk.extend_from_slice(&self.checksum.digest().to_le_bytes());
        (self.send)(self.chunk)?;
        Ok(self.rows)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.checksum.update(&self.chunk);
        let empty = Vec::with_capacity(CHUNK + CHUNK / 4);
        (self.send)(std::mem::replace(&mut self.chunk, empty))
    }
}

/// Reads a stream, in pieces of any size.
#[derive(Default)]
pub(super) struct Decoder {
    /// What was received and is not a whole row yet.
    buffer: Vec<u8>,
    checksum: Xxh3,
    has_head: bool,
    rows: u64,
    is_complete: bool,
}

impl Decoder {
    /// Passes every whole row on to `each`.
    ///
    /// # Errors
    ///
    /// What was received is no such stream, or `each` has failed.
    pub fn feed<E: From<io::Error>>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.buffer.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = buffer.as_slice();
        while let Some((row, after)) = self.next(rest)? {
            let used = rest.len() - after.len();
            self.checksum.update(rest.get(..used).unwrap_or_default());
            rest = after;
            if let Some(row) = row {
                self.rows += 1;
                each(row)?;
            }
        }
        self.buffer = rest.to_vec();
        Ok(())
    }

    /// The rows of a stream that is complete; `None` if its end is missing.
    pub fn rows(&self) -> Option<u64> {
        self.is_complete.then_some(self.rows)
    }

    /// The next part of the stream, if it is whole, and what comes after it.
    fn next<'a>(&mut self, from: &'a [u8]) -> io::Result<Option<(Option<Row<'a>>, &'a [u8])>> {
        if self.is_complete {
            return if from.is_empty() { Ok(None) } else { Err(no_stream("something follows")) };
        }
        if !self.has_head {
            let Some((head, after)) = from.split_at_checked(HEAD.len()) else { return Ok(None) };
            self.has_head = head == HEAD;
            return if self.has_head {
                Ok(Some((None, after)))
            } else {
                Err(no_stream("its head"))
            };
        }
        if from.first() == Some(&0) {
            let Some((tail, [])) = from.split_at_checked(1 + TAIL) else { return self.tail(from) };
            return self.tail(tail);
        }
        let Some((&[tag, key, a, b, c, d], after)) = from.split_first_chunk::<ROW_HEAD>() else {
            return Ok(None);
        };
        let table = Table::of(tag).ok_or_else(|| no_stream("an unknown table"))?;
        let value = u32::from_le_bytes([a, b, c, d]) as usize;
        if value > LONGEST_VALUE {
            return Err(no_stream("a value that is too long"));
        }
        let Some((key, after)) = after.split_at_checked(usize::from(key)) else { return Ok(None) };
        let Some((value, after)) = after.split_at_checked(value) else { return Ok(None) };
        Ok(Some((Some(Row { table, key, value }), after)))
    }

    /// Checks the end, if it is whole.
    fn tail<'a>(&mut self, from: &'a [u8]) -> io::Result<Option<(Option<Row<'a>>, &'a [u8])>> {
        let Some((counted, sum)) = from.split_at_checked(9) else { return Ok(None) };
        let Some((sum, after)) = sum.split_first_chunk::<8>() else { return Ok(None) };
        let rows = counted.split_last_chunk::<8>().map(|(_, rows)| u64::from_le_bytes(*rows));
        let mut checksum = self.checksum.clone();
        checksum.update(counted);
        if rows != Some(self.rows) || checksum.digest() != u64::from_le_bytes(*sum) {
            return Err(no_stream("its checksum"));
        }
        self.is_complete = true;
        Ok(Some((None, after)))
    }
}

fn no_stream(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("what was received is damaged: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rows = Vec<(Table, Vec<u8>, Vec<u8>)>;

    fn rows() -> Rows {
        (0..300_usize)
            .map(|nth| {
                (Table::ALL[nth % 6], vec![nth as u8; nth % 256], vec![7; nth * nth % 5_000])
            })
            .collect()
    }

    fn encoded() -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        let mut encoder = Encoder::new(|chunk| {
            chunks.push(chunk);
            Ok(())
        });
        for (table, key, value) in &rows() {
            encoder.row(Row { table: *table, key, value }).expect("room");
        }
        assert_eq!(encoder.finish().expect("room"), 300);
        chunks
    }

    /// The rows, and whether the stream was complete.
    fn decode(bytes: &[u8], step: usize) -> io::Result<(Rows, bool)> {
        let (mut decoder, mut found) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(step) {
            decoder.feed(piece, |row| {
                found.push((row.table, row.key.to_vec(), row.value.to_vec()));
                io::Result::Ok(())
            })?;
        }
        Ok((found, decoder.rows().is_some()))
    }

    #[test]
    fn rows_arrive_as_they_were_sent_in_pieces_of_any_size() {
        let chunks = encoded();
        assert!(chunks.len() > 3 && chunks.iter().all(|chunk| chunk.len() < CHUNK + 6_000));
        let bytes = chunks.concat();
        for step in [1, 2, 7, 4096, bytes.len()] {
            assert_eq!(decode(&bytes, step).expect("sound"), (rows(), true), "by {step}");
        }
    }

    #[test]
    fn a_stream_that_was_cut_changed_or_goes_on_is_noticed() {
        let mut bytes = encoded().concat();
        for cut in (0..bytes.len()).step_by(997).chain([bytes.len() - 1]) {
            assert!(!decode(&bytes[..cut], 4096).expect("the rest may come").1, "cut at {cut}");
        }
        for at in (0..bytes.len()).step_by(997).chain([bytes.len() - 1, bytes.len() - 10]) {
            bytes[at] ^= 4;
            let whole = decode(&bytes, 4096).is_ok_and(|(_, is_complete)| is_complete);
            assert!(!whole, "flipped at {at}");
            bytes[at] ^= 4;
        }
        bytes.push(0);
        decode(&bytes, 4096).expect_err("too long");
    }

    #[test]
    fn a_failure_of_the_receiver_ends_the_stream() {
        let mut encoder = Encoder::new(|_| Err(io::ErrorKind::BrokenPipe.into()));
        let row = Row { table: Table::Queue, key: &[1], value: &[0; CHUNK] };
        assert_eq!(encoder.row(row).expect_err("gone").kind(), io::ErrorKind::BrokenPipe);
    }
}
