//! What is listened to: the connections and requests of a market, for the instruments that it lists.
//!
//! An instrument that is listed while the source runs is listened to as well, over connections of its own, as soon as its listing is
//! settled. Every worker has learned the listing by then, so what comes of the instrument can be decoded wherever it goes.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use bytes::Bytes;
use model::Account;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::Wants;
use super::connect::Dialer;
use super::gaps::Gaps;
use super::inbox::Sender;
use super::poll;
use super::rest::Rest;
use super::socket::{Patience, Shard};
use super::venue::{Channel, Instrument, Market, Poll, Protocol};
use crate::OpenSource;

/// What is listened to of a market.
pub(super) struct Coverage {
    wants: Arc<Wants>,
    market: Market,
    rest: Rest,
    dialer: Arc<Dialer>,
    node: String,
    account: Arc<Account>,
    out: Sender,
    /// The channels that are listened to, by route and name.
    channels: HashSet<(&'static str, String)>,
    /// The paths that are asked for.
    paths: HashSet<String>,
    /// How many shards there are.
    shards: usize,
    /// How many connections the source has opened.
    connections: Arc<AtomicU32>,
}

/// What listens to a connection, and has yet to know what an earlier run heard.
pub(super) struct Recovering {
    pub(super) shard: Shard,
    pub(super) protocol: Box<dyn Protocol>,
    pub(super) gaps: Gaps,
}

/// The thread that listens to sockets, as long as this is there.
pub(super) struct Sockets {
    pub(super) handle: Handle,
    pub(super) _ends: oneshot::Sender<Infallible>,
}

/// A page of a market's listing that everybody has learned.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) market: String,
    pub(super) page: Bytes,
}

impl Coverage {
    /// Nothing is listened to yet.
    pub(super) fn new(
        wants: &Arc<Wants>,
        market: &Market,
        rest: &Rest,
        cx: &OpenSource,
        out: &Sender,
        connections: &Arc<AtomicU32>,
    ) -> Coverage {
        let options = &wants.options;
        let pause = options.connect_pause.map_or(market.limits.connect_pause, |pause| pause.0);
        Coverage {
            wants: wants.clone(),
            market: *market,
            rest: rest.clone(),
            dialer: Arc::new(Dialer::new(options.proxy.as_deref(), options.connect_timeout.0, pause)),
            node: cx.node.clone(),
            account: cx.account.clone(),
            out: out.clone(),
            channels: HashSet::new(),
            paths: HashSet::new(),
            shards: 0,
            connections: connections.clone(),
        }
    }

    /// The market.
    pub(super) fn market(&self) -> Market {
        self.market
    }

    /// What listens to what is wanted of these instruments and is not listened to yet.
    pub(super) fn shards(&mut self, instruments: &[Instrument]) -> Vec<Recovering> {
        let Wants { venue, options, .. } = &*self.wants.clone();
        let patience = Patience {
            acknowledgement: options.acknowledge_timeout.0,
            channel: options.silence.0,
            lifetime: options.lifetime.map_or(self.market.limits.lifetime, |lifetime| lifetime.0),
            silence: self.market.limits.silence,
            fill: options.fill_timeout.0,
        };
        let base = options.url.of(self.market.name).unwrap_or(self.market.socket);
        let mut shards = Vec::new();
        for channels in self.new_channels(instruments) {
            self.shards += 1;
            let protocol = venue.protocol(&self.market, &channels);
            let topics = channels.iter().map(|channel| venue.topic(&self.market, channel)).collect();
            let shard = Shard {
                name: format!("{}, {}, connection {}", self.node, self.market.name, self.shards),
                market: self.market,
                address: format!("{base}{}", channels[0].route),
                venue: venue.clone(),
                channels,
                topics,
                dialer: self.dialer.clone(),
                rest: self.rest.clone(),
                out: self.out.clone(),
                connections: self.connections.clone(),
                account: self.account.clone(),
                patience,
            };
            shards.push(Recovering { shard, protocol, gaps: Gaps::default() });
        }
        shards
    }

    /// The channels that are wanted and not listened to yet, by the connections that will carry them.
    fn new_channels(&mut self, instruments: &[Instrument]) -> Vec<Vec<Channel>> {
        let (Wants { venue, options, .. }, market) = (&*self.wants, &self.market);
        let all = options.kinds.iter().flat_map(|wanted| venue.market_channels(market, *wanted));
        let of = |instrument| options.kinds.iter().flat_map(move |wanted| venue.channels(market, instrument, *wanted));
        let mut routes: BTreeMap<&str, Vec<Channel>> = BTreeMap::new();
        for channel in all.chain(instruments.iter().flat_map(of)) {
            // Two kinds may come over one channel.
            if self.channels.insert((channel.route, channel.name.clone())) {
                routes.entry(channel.route).or_default().push(channel);
            }
        }
        let most = market.limits.channels;
        let most = options.channels_per_connection.map_or(most, |fewer| fewer.get().min(most));
        routes.into_values().flat_map(|channels| channels.chunks(most).map(<[_]>::to_vec).collect::<Vec<_>>()).collect()
    }

    /// Begins to ask for what no channel tells of these instruments, as far as nobody asks for it yet.
    pub(super) fn poll(&mut self, instruments: &[Instrument], listening: &mut JoinSet<()>) {
        let (Wants { venue, options, .. }, market) = (&*self.wants, &self.market);
        let all = options.kinds.iter().flat_map(|wanted| venue.market_polls(market, *wanted));
        let of = |instrument| options.kinds.iter().flat_map(move |wanted| venue.polls(market, instrument, *wanted));
        let new = |poll: &Poll| self.paths.insert(poll.ask.path.clone());
        for poll in all.chain(instruments.iter().flat_map(of)).filter(new) {
            listening.spawn(poll::run(poll, market.dialect, self.rest.clone(), self.out.clone()));
        }
    }

    /// Listens to what a page of the listing has that was not there before.
    fn extend(&mut self, page: &[u8], listening: &mut JoinSet<()>, sockets: &Sockets) {
        let instruments = match self.wants.meant(&self.market, page) {
            Ok(instruments) => instruments,
            Err(what) => return self.account.error(what.to_string()),
        };
        self.poll(&instruments, listening);
        for Recovering { shard, protocol, gaps } in self.shards(&instruments) {
            tracing::info!(shard = shard.name, channels = shard.channels.len(), "listens to what was not listed before");
            listening.spawn_on(shard.run(protocol, gaps), &sockets.handle);
        }
    }
}

/// Lets everything listen, and listens to what is listed later, too, until nobody says so any more.
pub(super) async fn extend(
    mut coverages: Vec<Coverage>,
    mut listed: UnboundedReceiver<Listed>,
    mut listening: JoinSet<()>,
    sockets: Sockets,
) {
    while let Some(Listed { market, page }) = listed.recv().await {
        if let Some(coverage) = coverages.iter_mut().find(|coverage| coverage.market.name == market) {
            coverage.extend(&page, &mut listening, &sockets);
        }
    }
}
