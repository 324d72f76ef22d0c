//! The market behind the frames: who trades when, at what price, and what the books look like.
//!
//! Time moves in *turns*. A turn falls to one instrument, the more often the larger its asset; the book follows
//! the asset's price path, somebody may trade at the touch, orders come and go. What the venue would publish of
//! it comes out as [`Event`]s: every turn ends with the new best bid and ask, and some with a depth update of all
//! changes since the last one. Books never cross, prices stay positive, and update numbers and trade ids
//! have the gaps that the venue's own have: none on spot, only between update numbers on futures.

use model::time::{Micros, SECOND};

use super::book::{Book, Delta, Level, Side};
use super::dice::Dice;
use super::listing::{Listing, asset_numbered};
use super::path::Path;

/// What a venue publishes of one turn.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Trade(Trade),
    Quote(Quote),
    /// Its levels are [`Book::changed`].
    Delta(Delta),
    Mark(Mark),
}

/// One execution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trade {
    /// One more than that of the instrument's trade before it.
    pub(super) id: i64,
    /// In ticks.
    pub(super) price: i64,
    /// In lots.
    pub(super) quantity: i64,
    /// Whether the taker sold.
    pub(super) buyer_is_maker: bool,
}

/// The best bid and ask after an update number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quote {
    pub(super) number: i64,
    pub(super) bid: Level,
    pub(super) ask: Level,
}

/// Mark price, index price and funding rate, each in units of 10⁻⁸.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) mark: i64,
    pub(super) index: i64,
    pub(super) rate: i64,
    /// When funding is paid next, in milliseconds since 1970.
    pub(super) next_funding: i64,
}

/// What an instrument may publish in a turn; what it may not does not happen, or waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allow {
    pub(super) trade: bool,
    pub(super) quote: bool,
    pub(super) delta: bool,
    pub(super) mark: bool,
}

/// Levels that a side has at least and at most.
const LEVELS: (usize, usize) = (10, 50);
/// How far behind the touch orders come in, in mean distances of levels.
const REACH: i64 = 30;
/// Frames that a turn makes in the mean: a quote, 5/16 · 1.3 trades, 3/16 depth updates.
const FRAMES_A_TURN: f64 = 1.6;
/// Time between two mark prices of an instrument.
const MARK_INTERVAL: Micros = 3 * SECOND;
/// Time between two fundings.
const FUNDING_INTERVAL: Micros = 8 * 3_600 * SECOND;

/// Every instrument, and the clock.
#[derive(Debug)]
pub(super) struct Market {
    dice: Dice,
    paths: Vec<Path>,
    instruments: Vec<Instrument>,
    /// An instrument has as many tickets as its share in the turns.
    tickets: Vec<u16>,
    /// Mean time between turns, in microseconds.
    pause: f64,
    start: Micros,
    /// Microseconds since the start.
    elapsed: f64,
}

impl Market {
    /// So many instruments at their first prices; `tempo` is the mean number of frames a second.
    pub(super) fn new(seed: u64, instruments: u32, start: Micros, tempo: f64) -> Self {
        let mut dice = Dice::new(seed, 0);
        let listings: Vec<(Listing, usize)> = (0..instruments as usize).map(Listing::numbered).collect();
        let assets = listings.last().map_or(0, |(_, asset)| asset + 1);
        let paths: Vec<Path> = (0..assets).map(|asset| Path::new(asset_numbered(asset).price, start)).collect();
        let instruments: Vec<Instrument> =
            listings.into_iter().map(|(listing, asset)| Instrument::new(listing, asset, &mut dice)).collect();
        // Activity falls with the rank of the asset, as it does on venues.
        let tickets = |(number, instrument): (usize, &Instrument)| std::iter::repeat_n(number as u16, (24 / (instrument.asset + 1)).max(3));
        let tickets = instruments.iter().enumerate().flat_map(tickets).collect();
        let pause = SECOND as f64 * FRAMES_A_TURN / tempo;
        Market { dice, paths, instruments, tickets, pause, start, elapsed: 0.0 }
    }

    /// The event time: whole milliseconds, as Binance sends it.
    pub(super) fn now(&self) -> Micros {
        (self.start + self.elapsed as Micros) / 1_000 * 1_000
    }

    /// The instrument of this number.
    pub(super) fn instrument(&self, number: usize) -> &Instrument {
        &self.instruments[number]
    }

    /// Lets time pass, and says whose turn it is.
    pub(super) fn next_turn(&mut self) -> usize {
        self.elapsed += self.dice.wait(self.pause);
        usize::from(self.tickets[self.dice.below(self.tickets.len())])
    }

    /// Takes the turn of an instrument.
    pub(super) fn act(&mut self, number: usize, allow: Allow, events: &mut Vec<Event>) {
        let now = self.now();
        let instrument = &mut self.instruments[number];
        let index = self.paths[instrument.asset].advance(now, &mut self.dice);
        instrument.act(index, allow, &mut self.dice, events);
        if allow.mark && now >= instrument.next_mark && instrument.listing.dialect.market != model::instrument::Market::Spot {
            events.push(Event::Mark(instrument.mark(now, index, &mut self.dice)));
        }
    }

    /// A turn that only changes the size at the best bid.
    pub(super) fn fidget(&mut self, number: usize, events: &mut Vec<Event>) {
        let instrument = &mut self.instruments[number];
        let bid = instrument.book.best(Side::Bid);
        instrument.resize(Side::Bid, bid.price, &mut self.dice);
        events.push(instrument.quote());
    }

    /// Crosses the book of an instrument: a bid comes in at the best ask or above, and stays.
    pub(super) fn cross(&mut self, number: usize, events: &mut Vec<Event>) {
        let instrument = &mut self.instruments[number];
        let price = instrument.book.best(Side::Ask).price + self.dice.between(0, 3);
        instrument.resize(Side::Bid, price, &mut self.dice);
        events.extend(instrument.book.publish().map(Event::Delta));
        events.push(instrument.quote());
    }

    /// Takes back what crosses the book.
    pub(super) fn uncross(&mut self, number: usize, events: &mut Vec<Event>) {
        let instrument = &mut self.instruments[number];
        while instrument.book.best(Side::Bid).price >= instrument.book.best(Side::Ask).price {
            instrument.set(Side::Bid, instrument.book.best(Side::Bid).price, 0, &mut self.dice);
        }
        events.extend(instrument.book.publish().map(Event::Delta));
        events.push(instrument.quote());
    }
}

/// One instrument.
#[derive(Debug)]
pub(super) struct Instrument {
    pub(super) listing: Listing,
    pub(super) book: Book,
    asset: usize,
    /// Ticks in one unit of the quote asset.
    ticks: f64,
    /// Mean distance of neighbouring levels, in ticks.
    gap: i64,
    trade_id: i64,
    /// What its price is above the asset's, as a fraction.
    premium: f64,
    next_mark: Micros,
}

impl Instrument {
    fn new(listing: Listing, asset: usize, dice: &mut Dice) -> Self {
        let ticks = listing.price.units();
        let fair = (asset_numbered(asset).price * ticks) as i64;
        let number = 1_000_003 * dice.between(1_000, 90_000);
        let mut instrument = Instrument {
            book: Book::new(number),
            asset,
            ticks,
            // The book reaches about 0.15 % from the touch.
            gap: (fair / 20_000).max(1),
            trade_id: 1_009 * dice.between(1_000, 4_000_000),
            premium: 0.0,
            next_mark: Micros::MIN,
            listing,
        };
        instrument.resize(Side::Bid, fair, dice);
        instrument.resize(Side::Ask, fair + 1, dice);
        instrument.deepen(dice);
        // The venue's book is older than the recording: what it was made of has been published.
        instrument.book.publish();
        instrument
    }

    fn act(&mut self, index: f64, allow: Allow, dice: &mut Dice, events: &mut Vec<Event>) {
        let fair = (index * (1.0 + self.premium) * self.ticks) as i64;
        self.follow(fair, dice);
        self.stir(dice);
        if allow.trade && dice.below(16) < 5 {
            self.trade(fair, dice, events);
        }
        self.touch(dice);
        self.deepen(dice);
        let delta = if allow.delta && dice.below(16) < 3 { self.book.publish() } else { None };
        let quote = allow.quote.then(|| self.quote());
        // Either feed can be the first to tell of the same update number.
        if dice.one_in(2) {
            events.extend(quote);
            events.extend(delta.map(Event::Delta));
        } else {
            events.extend(delta.map(Event::Delta));
            events.extend(quote);
        }
    }

    fn set(&mut self, side: Side, price: i64, quantity: i64, dice: &mut Dice) {
        let step = if self.listing.dialect.step == 1 { 1 } else { dice.between(1, self.listing.dialect.step) };
        self.book.set(side, price, quantity, step);
    }

    /// Puts an order of random size at a price.
    fn resize(&mut self, side: Side, price: i64, dice: &mut Dice) {
        let quantity = dice.size(3 * self.listing.typical);
        self.set(side, price, quantity, dice);
    }

    /// Moves the touch when the fair price has left it.
    fn follow(&mut self, fair: i64, dice: &mut Dice) {
        let (bid, ask) = (self.book.best(Side::Bid).price, self.book.best(Side::Ask).price);
        if fair + self.gap >= bid && fair - self.gap <= ask {
            return;
        }
        // Half of all spreads are one tick, a quarter two, ...
        let spread = 1 + i64::from(dice.bits().trailing_zeros().min(5));
        let bid = (fair - spread / 2).max(1);
        for (side, price) in [(Side::Bid, bid), (Side::Ask, bid + spread)] {
            // What stands better than the new touch is taken away before anything comes in: never crossed.
            while self.book.levels(side).last().is_some_and(|best| best.price * side.sign() > price * side.sign()) {
                self.set(side, self.book.best(side).price, 0, dice);
            }
        }
        self.resize(Side::Bid, bid, dice);
        self.resize(Side::Ask, bid + spread, dice);
        self.deepen(dice);
    }

    /// Changes one order behind the touch. New ones come near it, so that a level that is emptied has others close
    /// behind it, however far the price has gone; those left far behind are the first to be trimmed.
    fn stir(&mut self, dice: &mut Dice) {
        let side = if dice.one_in(2) { Side::Bid } else { Side::Ask };
        let levels = self.book.levels(side);
        let (behind, best) = (levels.len() - 1, self.book.best(side).price);
        match dice.below(4) {
            0 if behind > LEVELS.0 + 2 => {
                let price = levels[dice.below(behind)].price;
                self.set(side, price, 0, dice);
            }
            1 if behind > 0 => {
                let price = levels[dice.below(behind)].price;
                self.resize(side, price, dice);
            }
            _ => {
                let price = best - side.sign() * dice.between(1, REACH * self.gap);
                if price > 0 {
                    self.resize(side, price, dice);
                }
            }
        }
    }

    /// Somebody takes what is best on one side, mostly the side that the fair price pulls to.
    fn trade(&mut self, fair: i64, dice: &mut Dice, events: &mut Vec<Event>) {
        let pull = 2 * fair > self.book.best(Side::Bid).price + self.book.best(Side::Ask).price;
        let side = if (dice.below(8) < 5) == pull { Side::Ask } else { Side::Bid };
        // Whoever empties a level goes on to the next one, at most twice.
        for _ in 0..3 {
            let best = self.book.best(side);
            let quantity = dice.size(self.listing.typical).min(best.quantity);
            if quantity == best.quantity && self.book.levels(side).len() <= LEVELS.0 / 2 {
                return;
            }
            self.set(side, best.price, best.quantity - quantity, dice);
            self.trade_id += 1;
            events.push(Event::Trade(Trade { id: self.trade_id, price: best.price, quantity, buyer_is_maker: side == Side::Bid }));
            if quantity < best.quantity {
                return;
            }
        }
    }

    /// Changes the best level of a side: its size, or its price by joining the spread or leaving.
    fn touch(&mut self, dice: &mut Dice) {
        let (bid, ask) = (self.book.best(Side::Bid).price, self.book.best(Side::Ask).price);
        let (side, best) = if dice.one_in(2) { (Side::Bid, bid) } else { (Side::Ask, ask) };
        let spread = ask - bid;
        match dice.below(16) {
            0 if self.book.levels(side).len() > LEVELS.0 + 2 => self.set(side, best, 0, dice),
            1..=8 if spread > 1 => {
                let inside = if dice.one_in(4) { dice.between(1, spread - 1) } else { spread - 1 };
                self.resize(side, best + side.sign() * inside, dice);
            }
            _ => self.resize(side, best, dice),
        }
    }

    /// Brings the number of levels back into its bounds, at the far end.
    fn deepen(&mut self, dice: &mut Dice) {
        for side in [Side::Bid, Side::Ask] {
            while self.book.levels(side).len() > LEVELS.1 {
                self.set(side, self.book.levels(side)[0].price, 0, dice);
            }
            while self.book.levels(side).len() < LEVELS.0 {
                let price = self.book.levels(side)[0].price - side.sign() * dice.between(1, 2 * self.gap);
                if price < 1 {
                    break;
                }
                self.resize(side, price, dice);
            }
        }
    }

    fn quote(&self) -> Event {
        Event::Quote(Quote { number: self.book.number(), bid: self.book.best(Side::Bid), ask: self.book.best(Side::Ask) })
    }

    fn mark(&mut self, now: Micros, index: f64, dice: &mut Dice) -> Mark {
        self.next_mark = (now / MARK_INTERVAL + 1) * MARK_INTERVAL;
        // The premium wanders around zero, hardly ever beyond a thousandth; the funding rate follows it.
        self.premium = (self.premium * 0.98 + 0.000_05 * dice.normal()).clamp(-0.001, 0.001);
        let eighth = |value: f64| (value * 1e8) as i64;
        Mark {
            mark: eighth(index * (1.0 + self.premium)),
            index: eighth(index),
            rate: eighth(0.000_1 + self.premium),
            next_funding: (now / FUNDING_INTERVAL + 1) * FUNDING_INTERVAL / 1_000,
        }
    }
}
