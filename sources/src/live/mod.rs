//! Venues, live: what they send now, each frame kept before anything is made of it.
//!
//! One source a venue, all alike: its options say which markets, instruments and kinds are wanted, the venue's own listing says
//! which instruments there are, its `Venue` which channels tell of them. What makes the promises hold:
//!
//! - **Nothing heard is lost.** Every frame is written down (`spool`) before the runtime sees it, is on disk before what came from
//!   it is stored, and stays there until a checkpoint is behind that. The source is replayable like a file: killed at any moment
//!   it goes on behind the last frame settled, and frames that came and were not read are read then. A pipeline that is slow
//!   makes the spool grow and not the venue wait.
//! - **What was not heard is noticed.** The numbers of the venue are followed on every channel as frames come; a hole is told
//!   (`gaps`) and filled over REST where the venue can, a book that lost a change gets a new snapshot (`venue::Protocol`).
//!   Event time waits for what fills a hole.
//! - **It never stops.** Whatever ends a connection, another is opened (`socket`); requests keep within the venue's limits
//!   (`rest`).
//! - **Decoding is elsewhere.** Frames go on as they came, so a capture of them replays to the same records.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use config::{Check, Checked, Component, values};
use globset::{Glob, GlobMatcher};
use model::Account;
use model::instrument::{Listing, Market as Traded};
use model::kinds::FRAME;
use schemars::JsonSchema;
use serde::Deserialize;
use storage::attempts::Attempts;
use storage::say;
use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio::task::JoinSet;

mod binance;
mod bybit;
mod catalogue;
mod coinbase;
mod connect;
mod coverage;
mod cut;
mod deribit;
mod follow;
mod gaps;
mod inbox;
mod kraken;
mod okx;
mod poll;
mod reader;
mod rest;
mod socket;
mod spool;
#[cfg(test)]
mod testing;
mod venue;
mod witness;

pub use catalogue::{Question, instruments, venues};
use coverage::{Coverage, Recovering, Sockets};
use gaps::Holds;
use reader::LiveReader;
use rest::{Rest, Unanswered};
use socket::Shard;
use spool::{Batch, Cursor, Heard, Keeper, Spool, Tail, Writer};
pub use venue::Wanted;
use venue::{Instrument, Market, Over, Venue};

use crate::dialect::{self, Dialects};
use crate::{Clock, OpenSource, Position, Reader, Source, SourceError};

/// The least time between two looks at all sockets.
const ROUND: Duration = Duration::from_micros(500);
/// The least time between two writes to the spool.
const GATHERING: Duration = Duration::from_millis(1);

/// What every venue's source can be told.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub struct Options {
    /// The venue's markets. Default: all of them.
    #[serde(default)]
    pub markets: Vec<String>,
    /// The instruments, by their canonical symbols: `"BTC-USDT"`, `"ETH-*"`, `"*"`. A perpetual is meant with or without its
    /// `-PERP`. What matches nothing that the venue lists is an error.
    pub symbols: Vec<String>,
    /// What is wanted of them.
    pub kinds: Vec<Wanted>,
    /// Where sockets connect to instead of the venue's own address: one for all markets, or a table with one for each.
    #[serde(default)]
    pub url: Addresses,
    /// Where requests go instead of the venue's own address.
    #[serde(default)]
    pub rest_url: Addresses,
    /// An HTTP proxy that sockets and requests go through, e.g. `http://10.0.0.1:3128`.
    #[serde(default)]
    pub proxy: Option<String>,
    /// How long a connection may take to be opened.
    #[serde(default = "ten_seconds")]
    pub connect_timeout: values::Duration,
    /// How long a subscription may take to be acknowledged.
    #[serde(default = "ten_seconds")]
    pub acknowledge_timeout: values::Duration,
    /// A channel that used to speak and says nothing for so long, and for 20 times its usual pause, is taken for dead: the
    /// connection is opened anew.
    #[serde(default = "half_a_minute")]
    pub silence: values::Duration,
    /// How long a connection is used. Default: ten minutes less than the venue allows.
    #[serde(default)]
    pub lifetime: Option<values::Duration>,
    /// How many channels a connection carries at most. Default: as many as the venue serves well.
    #[serde(default)]
    pub channels_per_connection: Option<NonZeroUsize>,
    /// The pause between two connections that are opened to a market. Default: what the venue's limit allows.
    #[serde(default)]
    pub connect_pause: Option<values::Duration>,
    /// How long event time waits for trades that are missing and asked for. They are asked for even when it does not wait any more.
    #[serde(default = "ten_seconds")]
    pub fill_timeout: values::Duration,
    /// How often the venue is asked what it lists. What it did not list before is listened to from then on.
    #[serde(default = "an_hour")]
    pub listing_interval: values::Duration,
    /// How event time advances.
    #[serde(flatten)]
    pub clock: Clock,
}

fn ten_seconds() -> values::Duration {
    values::Duration::seconds(10)
}

fn an_hour() -> values::Duration {
    values::Duration::seconds(3_600)
}

fn half_a_minute() -> values::Duration {
    values::Duration::seconds(30)
}

/// One address for all markets, or one for each.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Addresses {
    /// For all.
    One(String),
    /// By market.
    Each(BTreeMap<String, String>),
}

impl Default for Addresses {
    fn default() -> Self {
        Addresses::Each(BTreeMap::new())
    }
}

impl Addresses {
    fn of(&self, market: &str) -> Option<&str> {
        match self {
            Addresses::One(address) => Some(address),
            Addresses::Each(addresses) => addresses.get(market).map(String::as_str),
        }
    }

    fn check(&self, key: &str, schemes: [&str; 2], markets: &[Market], cx: &mut Check<'_>) {
        let all: Vec<(&str, &String)> = match self {
            Addresses::One(address) => vec![("", address)],
            Addresses::Each(addresses) => addresses.iter().map(|(market, address)| (market.as_str(), address)).collect(),
        };
        for (market, address) in all {
            let path: Vec<&str> = [key, market].into_iter().filter(|part| !part.is_empty()).collect();
            if !market.is_empty() && !markets.iter().any(|known| known.name == market) {
                cx.error(&path, format!("there is no market `{market}`"), format!("the markets are {}", names(markets)));
            }
            let scheme = url::Url::parse(address).map(|url| url.scheme().to_owned());
            if !scheme.is_ok_and(|scheme| schemes.contains(&scheme.as_str())) {
                cx.error(&path, format!("`{address}` is no address"), format!("write it like {}://HOST:PORT", schemes[0]));
            }
        }
    }
}

fn names(markets: &[Market]) -> String {
    markets.iter().map(|market| format!("`{}`", market.name)).collect::<Vec<_>>().join(", ")
}

/// Declares the source of each venue.
macro_rules! sources {
    ($( $(#[$doc:meta])+ $source:ident: $venue:expr, $type:literal, markets $markets:literal, symbols $symbols:literal, kinds $kinds:literal; )+) => {
        $(
            $(#[$doc])+
            #[derive(Clone, Debug, Deserialize, JsonSchema)]
            #[serde(transparent)]
            pub struct $source(Options);

            impl Component<dyn Source> for $source {
                const TYPE: &'static str = $type;
                const EXAMPLE: &'static str = concat!(
                    "[sources.", $type, "]\ntype = \"", $type, "\"\nmarkets = ", $markets, "\nsymbols = ", $symbols, "\nkinds = ", $kinds, "\n",
                );

                fn check(self, cx: &mut Check<'_>) -> Option<Checked<dyn Source>> {
                    let component = Arc::new(self.0.live(Arc::new($venue), cx));
                    (!cx.failed()).then_some(Checked { outputs: vec![FRAME.clone()], component })
                }
            }
        )+

        /// Every venue, in the order of the manual.
        fn all() -> Vec<Arc<dyn Venue>> {
            vec![$(Arc::new($venue)),+]
        }
    };
}

sources! {
    /// Frames of Binance, live: the streams of its spot, USD-M (`usdm`), COIN-M (`coinm`) and options (`options`) markets, and what only
    /// its requests tell. Every frame is kept on disk until what comes of it is stored.
    Binance: binance::Binance, "binance",
        markets r#"["spot", "usdm"]"#,
        symbols r#"["BTC-USDT", "ETH-*"]"#,
        kinds r#"["trade", "book", "quote", "funding_rate", "open_interest", "liquidation", "long_short_ratio"]"#;
    /// Frames of OKX, live: the channels of its markets `spot`, `swap` (perpetuals), `futures` and `option`, and what only its requests
    /// tell. Every frame is kept on disk until what comes of it is stored.
    Okx: okx::Okx, "okx",
        markets r#"["spot", "swap"]"#,
        symbols r#"["BTC-USDT", "ETH-*"]"#,
        kinds r#"["trade", "book", "quote", "funding_rate", "open_interest", "liquidation", "long_short_ratio"]"#;
    /// Frames of Bybit, live: the topics of its markets `spot`, `linear`, `inverse` and `option`, and what only its requests tell.
    /// Every frame is kept on disk until what comes of it is stored.
    Bybit: bybit::Bybit, "bybit",
        markets r#"["spot", "linear"]"#,
        symbols r#"["BTC-USDT", "ETH-*"]"#,
        kinds r#"["trade", "book", "quote", "funding_rate", "open_interest", "liquidation", "long_short_ratio"]"#;
    /// Frames of Kraken, live: the channels of its markets `spot` and `futures`. Every frame is kept on disk until what comes of it is
    /// stored.
    Kraken: kraken::Kraken, "kraken",
        markets r#"["spot", "futures"]"#,
        symbols r#"["BTC-USD", "ETH-*"]"#,
        kinds r#"["trade", "book", "quote", "funding_rate", "open_interest", "liquidation"]"#;
    /// Frames of Deribit, live: the channels of its markets `future` (perpetuals, too), `option` and `spot`. Every frame is kept on disk
    /// until what comes of it is stored.
    Deribit: deribit::Deribit, "deribit",
        markets r#"["future", "option"]"#,
        symbols r#"["BTC-*", "ETH-USD"]"#,
        kinds r#"["trade", "book", "quote", "funding_rate", "mark_price", "open_interest", "volatility_index"]"#;
    /// Frames of Coinbase, live: the channels of its interfaces Advanced Trade (`advanced`: spot, futures and perpetuals) and Exchange
    /// (`exchange`: spot), and what only requests tell. Both lead to the same books and trades. Every frame is kept on disk until what
    /// comes of it is stored.
    Coinbase: coinbase::Coinbase, "coinbase",
        markets r#"["advanced"]"#,
        symbols r#"["BTC-USD", "ETH-*"]"#,
        kinds r#"["trade", "book", "quote", "funding_rate", "open_interest"]"#;
}

impl Options {
    /// The source that they describe; what is wrong with them is reported.
    fn live(self, venue: Arc<dyn Venue>, cx: &mut Check<'_>) -> Live {
        let all = venue.markets();
        for (i, name) in self.markets.iter().enumerate().filter(|(_, name)| !all.iter().any(|market| market.name == **name)) {
            cx.error(&["markets", &i.to_string()], format!("there is no market `{name}`"), format!("the markets are {}", names(all)));
        }
        let markets: Vec<Market> =
            all.iter().filter(|market| self.markets.is_empty() || self.markets.iter().any(|name| name == market.name)).copied().collect();
        if self.symbols.is_empty() {
            cx.error(&["symbols"], "no symbol", "name instruments, e.g. [\"BTC-USDT\"]; \"*\" is all of them");
        }
        let mut patterns = Vec::new();
        for (i, symbol) in self.symbols.iter().enumerate() {
            match Glob::new(symbol) {
                Ok(glob) => patterns.push(glob.compile_matcher()),
                Err(error) => cx.error(&["symbols", &i.to_string()], error.to_string(), "write it like `BTC-USDT`, `BTC-*` or `*`"),
            }
        }
        if self.kinds.is_empty() {
            cx.error(&["kinds"], "nothing is wanted", "name what is, e.g. [\"trade\", \"book\"]");
        }
        for (i, wanted) in self.kinds.iter().enumerate() {
            if !markets.is_empty() && !markets.iter().any(|market| venue.tells(market, *wanted)) {
                cx.error(
                    &["kinds", &i.to_string()],
                    format!("{} tell no such thing", names(&markets)),
                    "leave it out, or name another market",
                );
            }
        }
        self.url.check("url", ["wss", "ws"], all, cx);
        self.rest_url.check("rest_url", ["https", "http"], all, cx);
        if let Some(proxy) = &self.proxy
            && !url::Url::parse(proxy).is_ok_and(|url| url.scheme() == "http" && url.host().is_some())
        {
            cx.error(&["proxy"], format!("`{proxy}` is no HTTP proxy"), "write it like http://HOST:PORT");
        }
        Live { wants: Arc::new(Wants { venue, markets, patterns, options: self }), asked: OnceCell::new() }
    }
}

/// A source whose options passed their check.
#[derive(Debug)]
struct Live {
    wants: Arc<Wants>,
    /// The markets' listings, once they were asked for.
    asked: OnceCell<Vec<Asked>>,
}

/// What is wanted of a venue.
#[derive(Debug)]
struct Wants {
    venue: Arc<dyn Venue>,
    markets: Vec<Market>,
    patterns: Vec<GlobMatcher>,
    options: Options,
}

/// The pages of a market's listing, and what it was asked with.
#[derive(Debug)]
struct Asked {
    rest: Rest,
    listing: Vec<Bytes>,
}

#[async_trait]
impl Source for Live {
    fn clock(&self) -> Clock {
        self.wants.options.clock
    }

    async fn teach(&self, dialects: &mut Dialects) -> Result<(), SourceError> {
        for (market, Asked { listing, .. }) in self.wants.markets.iter().zip(self.asked().await?) {
            for page in listing {
                dialects.learn(market.dialect, page).map_err(|what| self.wants.misread(market, what))?;
            }
        }
        Ok(())
    }

    async fn open(&self, cx: OpenSource) -> Result<Box<dyn Reader>, SourceError> {
        let asked = self.asked().await?;
        let instruments = self.instruments(asked)?;
        let folder = Path::new(cx.settings.data()).join("pipelines").join(&cx.pipeline).join("spool").join(&cx.node);
        let spool = Spool::open(&folder).map_err(|error| SourceError {
            transient: true,
            place: folder.display().to_string(),
            what: format!("the spool cannot be opened: {error}"),
            remedy: "see whether the data folder may be written and the disk has room".into(),
        })?;
        let (out, inbox) = inbox::inbox();
        let Spool { writer, keeper, identity, tail, kept } = spool;
        let (account, place) = (cx.account.clone(), folder.display().to_string());
        let writes = thread::Builder::new().name("spool".into()).spawn(move || write(writer, &inbox, &account, &place));
        let (account, place) = (cx.account.clone(), folder.display().to_string());
        let keeps = thread::Builder::new().name("spool disk".into()).spawn(move || keep(keeper, &account, &place));
        let connections = Arc::new(AtomicU32::new(0));
        let of_market = |(market, Asked { rest, .. }): (&Market, &Asked)| Coverage::new(&self.wants, market, rest, &cx, &out, &connections);
        let mut coverages: Vec<Coverage> = self.wants.markets.iter().zip(asked).map(of_market).collect();
        let mut shards = Vec::new();
        for (coverage, instruments) in coverages.iter_mut().zip(&instruments) {
            shards.append(&mut coverage.shards(instruments));
        }
        let Recovered { holds, mut given_up } = recover(&mut shards, &folder, *tail.borrow(), cx.from.as_ref())?;
        out.send(&mut given_up).await;
        // Sockets have a thread of their own, which takes them in the order in which they have something: a pool of threads would let some
        // wait behind others for as long as it is busy. What is asked for and read at length stays away from it.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().on_thread_park(in_rounds()).build();
        let runtime = runtime.map_err(|error| self.wants.no_thread(&error))?;
        let (sockets, (ends, over)) = (runtime.handle().clone(), oneshot::channel());
        let listens = thread::Builder::new().name("sockets".into()).spawn(move || runtime.block_on(over));
        writes.and(keeps).and(listens.map(drop)).map_err(|error| self.wants.no_thread(&error))?;
        let mut listening = JoinSet::new();
        for ((coverage, instruments), Asked { rest, listing }) in coverages.iter_mut().zip(&instruments).zip(asked) {
            coverage.poll(instruments, &mut listening);
            listening.spawn(poll::listing(self.wants.clone(), coverage.market(), rest.clone(), listing.clone(), out.clone()));
        }
        for Recovering { shard, protocol, gaps } in shards {
            listening.spawn_on(shard.run(protocol, gaps), &sockets);
        }
        let (listed, told) = mpsc::unbounded_channel();
        tokio::spawn(coverage::extend(coverages, told, listening, Sockets { handle: sockets, _ends: ends }));
        Ok(Box::new(LiveReader::open(&folder, identity, cx.from, holds, &cx.node, (tail, kept), listed)?))
    }
}

impl Live {
    fn client(&self) -> Result<reqwest::Client, SourceError> {
        // Some venues answer nobody who does not say who asks.
        let name = concat!("marketprism/", env!("CARGO_PKG_VERSION"));
        let mut client = reqwest::Client::builder().user_agent(name).connect_timeout(self.wants.options.connect_timeout.0);
        if let Some(proxy) = &self.wants.options.proxy {
            client = client.proxy(reqwest::Proxy::all(proxy).map_err(|error| self.wants.unable(error.to_string(), "correct `proxy`"))?);
        }
        client.build().map_err(|error| self.wants.unable(say(&error), "see the system's TLS certificates"))
    }

    /// The listings of the markets, in their order.
    async fn asked(&self) -> Result<&Vec<Asked>, SourceError> {
        let ask = || async {
            let client = self.client()?;
            let mut asked = Vec::new();
            for market in &self.wants.markets {
                let base = self.wants.options.rest_url.of(market.name).unwrap_or(market.rest);
                let rest = Rest::new(client.clone(), self.wants.venue.clone(), market, base);
                let listing =
                    poll::pages(&*self.wants.venue, market, &rest).await.map_err(|Unanswered { transient, what }| SourceError {
                        transient,
                        ..self
                            .wants
                            .unable(what, "see whether the venue can be reached; set `proxy` or `rest_url` where it cannot be directly")
                    })?;
                asked.push(Asked { rest, listing });
            }
            Ok(asked)
        };
        self.asked.get_or_try_init(ask).await
    }

    /// The instruments that are meant, by market.
    fn instruments(&self, asked: &[Asked]) -> Result<Vec<Vec<Instrument>>, SourceError> {
        let wants = &*self.wants;
        let mut all = Vec::new();
        for (market, Asked { listing, .. }) in wants.markets.iter().zip(asked) {
            let mut meant = Vec::new();
            for page in listing {
                meant.extend(wants.meant(market, page)?);
            }
            all.push(meant);
        }
        let is_found = |pattern| {
            let mut found =
                all.iter().flatten().flat_map(|Instrument { listing, .. }| wants.matching(listing.market.as_str(), &listing.symbol));
            found.any(|found| found == pattern)
        };
        if let Some(at) = (0..wants.patterns.len()).find(|pattern| !is_found(*pattern)) {
            let what = format!("`{}` matches no instrument that {} list", wants.options.symbols[at], names(&wants.markets));
            return Err(wants.unable(what, "correct `symbols`"));
        }
        Ok(all)
    }
}

impl Wants {
    /// The instruments of a page of a listing that are meant.
    fn meant(&self, market: &Market, page: &[u8]) -> Result<Vec<Instrument>, SourceError> {
        let listed = dialect::instruments(market.dialect, page).map_err(|what| self.misread(market, what))?;
        let is_meant = |listing: &Listing| self.matching(listing.market.as_str(), &listing.symbol).next().is_some();
        Ok(listed.into_iter().filter(|(_, listing)| is_meant(listing)).map(|(symbol, listing)| Instrument { symbol, listing }).collect())
    }

    /// The patterns that an instrument matches, by their numbers. A perpetual goes without its ending, too.
    fn matching(&self, market: &str, symbol: &str) -> impl Iterator<Item = usize> {
        let short = symbol.strip_suffix("-PERP").filter(|_| market == Traded::Perpetual.as_str());
        let matches = move |pattern: &GlobMatcher| pattern.is_match(symbol) || short.is_some_and(|short| pattern.is_match(short));
        self.patterns.iter().enumerate().filter(move |(_, pattern)| matches(pattern)).map(|(number, _)| number)
    }

    fn unable(&self, what: impl Into<String>, remedy: &str) -> SourceError {
        SourceError { transient: false, place: self.venue.name().into(), what: what.into(), remedy: remedy.into() }
    }

    fn no_thread(&self, error: &io::Error) -> SourceError {
        self.unable(error.to_string(), "see how many threads and files the system allows")
    }

    fn misread(&self, market: &Market, what: String) -> SourceError {
        self.unable(format!("the listing of `{}` {what}", market.name), "see whether `rest_url` is the venue's")
    }
}

/// What an earlier run has left.
struct Recovered {
    /// The holes at the position that is gone on from.
    holds: Holds,
    /// What tells that holes which nobody listens to any more are lost.
    given_up: Batch,
}

/// Lets what listens know what an earlier run heard and missed, as far as it is still there: so what was missed in between is noticed.
fn recover(shards: &mut [Recovering], folder: &Path, tail: Tail, from: Option<&Position>) -> Result<Recovered, SourceError> {
    let mut cursor = Cursor::open(folder, None, tail)?;
    let (mut holds, mut before) = (Holds::default(), Holds::default());
    let mut orders = Vec::new();
    let mut tell = |number: u64, heard: Heard<'_>| {
        holds.hear(number, &heard);
        if from.is_some_and(|from| number <= from.offset) {
            before.hear(number, &heard);
        }
        // What was asked for by a request is no frame of a channel.
        let of_channel = |shard: &Shard| heard.topic.is_empty() || shard.topics.iter().any(|topic| topic == heard.topic);
        let listens = |Recovering { shard, .. }: &&mut Recovering| shard.market.dialect == heard.dialect && of_channel(shard);
        for Recovering { protocol, .. } in shards.iter_mut().filter(listens) {
            protocol.hear(Over { line: 0, beside: false }, heard.payload, &mut orders);
            orders.clear();
        }
    };
    while cursor.take(tail, &mut tell)? {}
    for Recovering { shard, protocol, gaps } in &mut *shards {
        gaps.recall(&holds, &shard.market, &shard.channels);
        protocol.taken_over();
    }
    let listens =
        |shard: &Shard, market: &str, name: &str| shard.market.name == market && shard.channels.iter().any(|channel| channel.name == name);
    let mut given_up = Batch::default();
    holds.give_up(|market, name| shards.iter().any(|recovering| listens(&recovering.shard, market, name)), &mut given_up);
    Ok(Recovered { holds: before, given_up })
}

/// Waits for the disk to have what is written.
fn keep(keeper: Keeper, account: &Account, place: &str) {
    if let Err(error) = keeper.run() {
        tracing::error!(place, "the disk does not keep what was heard: {error}");
        account.error(format!("{place}: the disk does not keep what was heard: {error}"));
    }
}

/// What a thread does before it waits for sockets: it leaves them alone for the rest of a round, and then takes all that have something
/// at once. Who is looked at first after a pause does not wait.
fn in_rounds() -> impl Fn() + Send + Sync + 'static {
    let last_look = Mutex::new(Instant::now());
    move || {
        let mut last_look = last_look.lock().expect("nobody panics with it");
        if let Some(rest) = ROUND.checked_sub(last_look.elapsed()) {
            thread::sleep(rest);
        }
        *last_look = Instant::now();
    }
}

/// Writes what comes to the spool, as much at once as there is, until nothing comes any more.
fn write(mut writer: Writer, inbox: &inbox::Receiver, account: &Arc<Account>, place: &str) {
    let mut attempts = Attempts::new(account, place, "spool");
    let mut batch = Batch::default();
    while inbox.take(&mut batch) {
        let begun = Instant::now();
        while let Err(error) = writer.append(&batch) {
            // What listens waits meanwhile, and so does the venue.
            thread::sleep(attempts.failed(&error.to_string(), "make room on the disk, or see whether it is whole"));
            if inbox.is_over() {
                return;
            }
        }
        attempts.succeeded();
        batch.clear();
        // Where the disk is fast, frames would be written one by one and cost a thousand times as much.
        if let Some(rest) = GATHERING.checked_sub(begun.elapsed()) {
            thread::sleep(rest);
        }
    }
}
