"""Bars by activity of the trades in a recording, from the definitions and with nothing of MarketPrism.

Usage: activity_bars.py RECORDING < RULES
RULES: a JSON list of {"rule": name, "ends": "sum" | "imbalance" | "runs" | "range" | "renko", "of": "ticks" | "volume" | "value",
"threshold": text} or, in place of a threshold, "expect": {"first", "bars", "trades", "min_trades", "max_trades"}.
Prints a JSON object for each bar, rule by rule. Numbers are exact, as text; a mean of an expected value is a double.

Definitions: M. López de Prado, "Advances in Financial Machine Learning" (2018), chapter 2. Python's standard library is enough.
"""

import gzip
import json
import sys
from decimal import ROUND_HALF_EVEN, Decimal, getcontext

getcontext().prec = 60


class Trade:
    def __init__(self, data):
        self.id, self.time = data["t"], data["T"]
        self.price, self.size = Decimal(data["p"]), Decimal(data["q"])
        self.bought = not data["m"]  # The buyer was the maker, so the taker sold.

    def moves(self, of):
        return {"ticks": Decimal(1), "volume": self.size, "value": self.price * self.size}[of]


def trades(recording):
    found = {}
    with gzip.open(recording, "rt") as lines:
        for line in lines:
            frame = json.loads(line.split(" ", 1)[1])
            data = frame.get("data", {})
            if isinstance(data, dict) and data.get("e") == "trade":
                found[data["t"]] = Trade(data)
    return sorted(found.values(), key=lambda trade: (trade.time, trade.id))


class Running:
    """An exponentially weighted mean, one value after the other."""

    def __init__(self, span):
        self.weight, self.mean = 2.0 / (span + 1.0), None

    def hear(self, value):
        self.mean = value if self.mean is None else self.mean + self.weight * (value - self.mean)

    def get(self):
        return self.mean or 0.0


def vwap(value, volume):
    return (value / volume).quantize(Decimal("1e-12"), ROUND_HALF_EVEN)


def bar(rule, number, held, threshold, prices=None):
    first, last = held[0], held[-1]
    price = [trade.price for trade in held]
    prices = prices or (price[0], max(price), min(price), price[-1])
    volume = sum((trade.size for trade in held), Decimal(0))
    value = sum((trade.price * trade.size for trade in held), Decimal(0))
    bought = sum((trade.size for trade in held if trade.bought), Decimal(0))
    return {
        "rule": rule["rule"], "number": number, "start": first.time, "end": last.time,
        "open": prices[0], "high": prices[1], "low": prices[2], "close": prices[3],
        "volume": volume, "quote_volume": value, "buy_volume": bought, "sell_volume": volume - bought,
        "trades": len(held), "vwap": vwap(value, volume), "threshold": threshold, "first_trade_id": first.id, "last_trade_id": last.id,
    }


def bars(rule, all_trades):
    threshold = Decimal(rule["threshold"]) if "threshold" in rule else None
    expect, of = rule.get("expect"), rule.get("of")
    if expect:
        length = Running(expect["bars"])
        signed, share, buys, sells = (Running(expect["trades"]) for _ in range(4))
        per_trade = 0.0
    held, number = [], 0
    for trade in all_trades:
        held.append(trade)
        bought = sum((one.moves(of) for one in held if one.bought), Decimal(0)) if of else None
        sold = sum((one.moves(of) for one in held if not one.bought), Decimal(0)) if of else None
        if rule["ends"] == "range":
            prices = [one.price for one in held]
            moved = max(prices) - min(prices)
        else:
            moved = {"sum": bought + sold, "imbalance": abs(bought - sold), "runs": max(bought, sold)}[rule["ends"]]
        if expect is None:
            ends, reached = moved >= threshold, threshold
        elif length.mean is None:
            ends, reached = len(held) >= expect["first"], None
        else:
            wanted = length.get() * per_trade
            enough = len(held) >= expect["min_trades"] and float(moved) >= wanted
            ends, reached = enough or len(held) >= expect["max_trades"], f"{wanted:.12f}" if enough else None
        if expect:
            move = float(trade.moves(of))
            signed.hear(move if trade.bought else -move)
            share.hear(1.0 if trade.bought else 0.0)
            (buys if trade.bought else sells).hear(move)
        if ends:
            yield bar(rule, number, held, reached)
            if expect:
                length.hear(float(len(held)))
                runs = max(share.get() * buys.get(), (1.0 - share.get()) * sells.get())
                per_trade = abs(signed.get()) if rule["ends"] == "imbalance" else runs
            held, number = [], number + 1


def bricks(rule, all_trades):
    size, held, number = Decimal(rule["threshold"]), [], 0
    low = high = None
    for trade in all_trades:
        held.append(trade)
        if low is None:
            low = high = trade.price
        while trade.price >= high + size or trade.price <= low - size:
            if trade.price >= high + size:
                low, high = high, high + size
                prices = (low, high, low, high)
            else:
                low, high = low - size, low
                prices = (high, high, low, low)
            if held:
                yield bar(rule, number, held, size, prices)
            else:
                nothing = bar(rule, number, [trade], size, prices)
                zero = dict.fromkeys(("volume", "quote_volume", "buy_volume", "sell_volume"), Decimal(0))
                yield nothing | zero | {"trades": 0, "vwap": None}
            held, number = [], number + 1


def main():
    rules, all_trades = json.load(sys.stdin), trades(sys.argv[1])
    for rule in rules:
        for made in bricks(rule, all_trades) if rule["ends"] == "renko" else bars(rule, all_trades):
            print(json.dumps({name: str(value) if isinstance(value, Decimal) else value for name, value in made.items()}))


main()
