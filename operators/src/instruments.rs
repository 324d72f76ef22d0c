//! Instruments as small numbers, and the state of operators that keep some for each of them.
//!
//! An operator with state by instrument numbers the instruments as it meets them and keeps its state in [`Pages`].
//! Reading the names costs a look-up per batch and instrument; a row costs a comparison of keys.

use std::fmt;
use std::sync::LazyLock;

use ahash::RandomState;
use arrow::array::{Array, BinaryArray, DictionaryArray, RecordBatch};
use arrow::datatypes::Int32Type;
use hashbrown::{HashMap, HashTable};
use model::columns::{self, Bytes, ColumnType, Label};
use model::{Column, Kind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pages::{Pages, Snapped};

/// The number of a row that names no instrument.
pub const NONE: u32 = u32::MAX;

/// The three names that stand for an instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instrument {
    /// The venue.
    pub venue: Box<str>,
    /// The market.
    pub market: Box<str>,
    /// The canonical symbol.
    pub symbol: Box<str>,
}

impl fmt::Display for Instrument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.venue, self.market, self.symbol)
    }
}

/// The instruments met so far, numbered from zero in the order of meeting.
#[derive(Debug, Default)]
pub struct Instruments {
    /// The hash of each instrument's names, and its number.
    numbers: HashTable<(u64, u32)>,
    hasher: RandomState,
    names: Pages<Instrument>,
}

impl Instruments {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names behind a number that this table gave.
    pub fn get(&self, number: u32) -> &Instrument {
        self.names.get(number as usize).expect("this table gave the number")
    }

    /// The number of an instrument.
    pub fn number(&mut self, venue: &str, market: &str, symbol: &str) -> u32 {
        let hash = self.hasher.hash_one([venue, market, symbol]);
        let same = |number: u32| {
            let known = self.get(number);
            (&*known.symbol, &*known.market, &*known.venue) == (symbol, market, venue)
        };
        if let Some((_, number)) = self.numbers.find(hash, |(known, number)| *known == hash && same(*number)) {
            return *number;
        }
        let number = u32::try_from(self.len()).expect("there are fewer instruments than 2³²");
        self.names.push(Instrument { venue: venue.into(), market: market.into(), symbol: symbol.into() });
        self.numbers.insert_unique(hash, (hash, number), |(hash, _)| *hash);
        number
    }

    /// The instruments as of now, in the groups that a checkpoint stores: a group has the same instruments in the same
    /// order in every checkpoint of a run (the last one grows), so what has not changed gives the same batch again.
    pub fn groups(&mut self) -> impl Iterator<Item = Group> + Send + use<> {
        let mut first = 0;
        self.names.snapshot().into_groups().map(move |names| {
            let group = Group { first, names };
            first += group.names.len() as u32;
            group
        })
    }

    /// The instrument of each row; [`NONE`] where a name is null or the columns are missing.
    pub fn resolve(&mut self, rows: &RecordBatch) -> Vec<u32> {
        let column = |name| rows.column_by_name(name).and_then(|c| c.as_any().downcast_ref::<DictionaryArray<Int32Type>>());
        let (Some(venues), Some(markets), Some(symbols)) = (column("venue"), column("market"), column("symbol")) else {
            return vec![NONE; rows.num_rows()];
        };
        let mut known: HashMap<[i32; 3], u32, RandomState> = HashMap::default();
        let mut last = ([-1; 3], NONE);
        let key = |column: &DictionaryArray<Int32Type>, row| if column.is_valid(row) { column.keys().value(row) } else { -1 };
        (0..rows.num_rows())
            .map(|row| {
                let keys = [key(venues, row), key(markets, row), key(symbols, row)];
                if keys != last.0 {
                    let number = *known.entry(keys).or_insert_with(|| {
                        match (columns::label(venues, row), columns::label(markets, row), columns::label(symbols, row)) {
                            (Some(venue), Some(market), Some(symbol)) => self.number(venue, market, symbol),
                            _ => NONE,
                        }
                    });
                    last = (keys, number);
                }
                last.1
            })
            .collect()
    }
}

/// Some instruments whose numbers follow each other.
#[derive(Debug)]
pub struct Group {
    first: u32,
    names: Snapped<Instrument>,
}

impl Group {
    /// Number and names of each instrument.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Instrument)> {
        (self.first..).zip(self.names.iter())
    }
}

/// The kind of a stored state: what an operator keeps of one instrument, as bytes that it alone reads.
static STATE: LazyLock<Kind> = LazyLock::new(|| {
    let column = |name: &'static str, ty, doc: &'static str| Column { name: name.into(), ty, nullable: false, doc: doc.into() };
    let columns = vec![
        column("venue", Label::TYPE, "The venue."),
        column("market", Label::TYPE, "The market."),
        column("symbol", Label::TYPE, "The canonical symbol."),
        column("part", Label::TYPE, "The part of the operator whose state it is."),
        column("state", Bytes::TYPE, "The state, as bincode."),
    ];
    Kind::new(
        "operator_state",
        None,
        "What an operator keeps of an instrument.",
        columns,
        vec![],
        vec!["venue".into(), "market".into(), "symbol".into()],
        false,
    )
});

/// States of instruments, on their way into a checkpoint.
#[derive(Debug, Default)]
pub struct StateBuilder {
    venue: <Label as ColumnType>::Builder,
    market: <Label as ColumnType>::Builder,
    symbol: <Label as ColumnType>::Builder,
    part: <Label as ColumnType>::Builder,
    state: <Bytes as ColumnType>::Builder,
    /// Space for a state.
    bytes: Vec<u8>,
}

impl StateBuilder {
    /// Adds the state that a part of the operator keeps of an instrument.
    pub fn push(&mut self, instrument: &Instrument, part: &str, state: &impl Serialize) {
        self.bytes.clear();
        bincode::serialize_into(&mut self.bytes, state).expect("memory takes all, and a state knows its lengths");
        Label::push(&mut self.venue, &instrument.venue);
        Label::push(&mut self.market, &instrument.market);
        Label::push(&mut self.symbol, &instrument.symbol);
        Label::push(&mut self.part, part);
        Bytes::push(&mut self.state, &self.bytes);
    }

    /// The states as rows.
    pub fn finish(mut self) -> RecordBatch {
        let columns = vec![
            Label::finish(&mut self.venue),
            Label::finish(&mut self.market),
            Label::finish(&mut self.symbol),
            Label::finish(&mut self.part),
            Bytes::finish(&mut self.state),
        ];
        RecordBatch::try_new(STATE.schema().clone(), columns).expect("every push fills every column")
    }
}

/// Whether rows are states that [`StateBuilder`] made.
pub fn is_state(rows: &RecordBatch) -> bool {
    rows.schema_ref() == STATE.schema()
}

/// Hands out the states that [`StateBuilder`] made: the number of the instrument, the part and the bytes.
pub fn states(batches: &[RecordBatch], instruments: &mut Instruments, mut each: impl FnMut(u32, &str, &[u8])) {
    for rows in batches {
        let numbers = instruments.resolve(rows);
        let parts = rows.column_by_name("part").and_then(|c| c.as_any().downcast_ref()).expect("states have parts");
        let bytes: &BinaryArray = rows.column_by_name("state").and_then(|c| c.as_any().downcast_ref()).expect("states have bytes");
        for (row, number) in numbers.into_iter().enumerate() {
            each(number, columns::label(parts, row).expect("states have no nulls"), bytes.value(row));
        }
    }
}

/// Reads bytes that [`StateBuilder`] wrote.
pub fn read_state<T: DeserializeOwned>(bytes: &[u8]) -> T {
    bincode::deserialize(bytes).expect("a checkpoint holds what the operator wrote")
}
