//! What can be listened to: the venues, and the instruments that they list now.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, StringArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use config::Check;
use model::columns::label;
use model::dialect::{FrameRef, Records};
use model::kinds::{INSTRUMENT, InstrumentRows};
use model::time;
use serde_json::json;

use super::venue::{Market, Venue, Wanted};
use super::{Asked, Options, all};
use crate::SourceError;
use crate::dialect::Dialects;

/// The markets of every venue: `venue`, `market`, `kinds` (what it tells, as pipeline files name it), `dialect`, `url` and
/// `rest_url`, all texts.
pub fn venues() -> RecordBatch {
    let venues = all();
    let markets: Vec<(&dyn Venue, &Market)> =
        venues.iter().flat_map(|venue| venue.markets().iter().map(move |market| (&**venue, market))).collect();
    let column = |text: &dyn Fn(&dyn Venue, &Market) -> String| {
        Arc::new(StringArray::from_iter_values(markets.iter().map(|(venue, market)| text(*venue, market)))) as _
    };
    let kinds = |venue: &dyn Venue, market: &Market| {
        let told = Wanted::ALL.into_iter().filter(|wanted| venue.tells(market, *wanted));
        told.map(|wanted| wanted.to_string()).collect::<Vec<_>>().join(" ")
    };
    let columns = vec![
        column(&|venue, _| venue.name().into()),
        column(&|_, market| market.name.into()),
        column(&kinds),
        column(&|_, market| market.dialect.into()),
        column(&|_, market| market.socket.into()),
        column(&|_, market| market.rest.into()),
    ];
    let fields = ["venue", "market", "kinds", "dialect", "url", "rest_url"].map(|name| Field::new(name, DataType::Utf8, false));
    RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), columns).expect("the columns are the schema's")
}

/// A question for instruments.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The venue, as its source is called.
    pub venue: String,
    /// Its markets; none are all.
    pub markets: Vec<String>,
    /// Canonical symbols, or globs.
    pub symbols: Vec<String>,
    /// Where it is asked instead of the venue's own address.
    pub rest_url: Option<String>,
    /// An HTTP proxy that it is asked through.
    pub proxy: Option<String>,
}

/// The instruments that a venue lists now, as `instrument` records, by market in the order of its listing.
///
/// # Errors
/// There is no such venue or market, a symbol is no glob or matches nothing, an address is none, or the venue does not answer.
pub async fn instruments(question: Question) -> Result<RecordBatch, SourceError> {
    let wrong = |what: String, remedy: String| SourceError { transient: false, place: question.venue.clone(), what, remedy };
    let venue = all().into_iter().find(|venue| venue.name() == question.venue).ok_or_else(|| {
        let known: Vec<String> = all().iter().map(|venue| format!("`{}`", venue.name())).collect();
        wrong(format!("there is no venue `{}`", question.venue), format!("the venues are {}", known.join(", ")))
    })?;
    // A source that asks the same; which kinds it wants does not matter to a listing.
    let mut options = json!({
        "markets": question.markets,
        "symbols": question.symbols,
        "kinds": [Wanted::Trade],
        "proxy": question.proxy,
    });
    if let Some(rest_url) = &question.rest_url {
        options["rest_url"] = json!(rest_url);
    }
    let options: Options = serde_json::from_value(options).expect("it is what the options are made of");
    let mut cx = Check::new(&question.venue, &[]);
    let live = options.live(venue, &mut cx);
    if let Some(problem) = cx.into_problems().into_iter().next() {
        return Err(wrong(problem.message, problem.help));
    }
    let asked = live.asked().await?;
    live.instruments(asked)?;
    let mut batches = Vec::new();
    for (market, Asked { listing, .. }) in live.wants.markets.iter().zip(asked) {
        let mut dialects = Dialects::default();
        for page in listing {
            dialects.learn(market.dialect, page).map_err(|what| live.wants.misread(market, what))?;
        }
        let mut dialect = dialects.make(market.dialect).expect("a market's dialect is there");
        let mut records = Records::wanting([&*INSTRUMENT.name]);
        for page in listing {
            let frame = FrameRef { receive_time: Some(time::now()), frame: 1, topic: None, payload: page };
            dialect.decode(frame, &mut records).map_err(|reject| live.wants.misread(market, reject.detail))?;
        }
        for (_, rows) in records.finish() {
            let listed = InstrumentRows::of(&rows).expect("they were built so");
            let meant = |row: usize| {
                let [market, symbol] = [listed.market, listed.symbol].map(|column| label(column, row).unwrap_or_default());
                live.wants.matching(market, symbol).next().is_some()
            };
            let kept = BooleanArray::from_iter((0..rows.num_rows()).map(|row| Some(meant(row))));
            batches.push(filter_record_batch(&rows, &kept).expect("there is one answer for each row"));
        }
    }
    Ok(concat_batches(INSTRUMENT.schema(), &batches).expect("they are of one kind"))
}
