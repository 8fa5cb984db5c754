"""What machines cost: pure formulas from prices, power and throughput."""

from __future__ import annotations

from typing import Final

HOURS_A_YEAR: Final = 8766.0
"""365.25 days."""

JOULES_A_KWH: Final = 3.6e6
"""Joules of a kilowatt-hour; a definition."""

MILLION: Final = 1e6
"""Tokens that prices are stated for."""


def ownership_cost_per_hour(
    purchase: float, lifetime_years: float, average_w: float, electricity_per_kwh: float, pue: float
) -> float:
    """Cost of a bought machine an hour: its price spread evenly over its life, and its electricity.

    Args:
        purchase: price, in some currency.
        lifetime_years: years of use over which it is spread, without interest or resale.
        average_w: average power of the machine, host included.
        electricity_per_kwh: price of a kilowatt-hour, same currency.
        pue: power of the site over power of its machines (Power Usage Effectiveness), at least 1.
    """
    capital = purchase / (lifetime_years * HOURS_A_YEAR)
    return capital + 1e-3 * average_w * pue * electricity_per_kwh


def cost_per_million_tokens(cost_per_hour: float, tokens_per_s: float) -> float:
    """Cost of a million tokens at a steady rate of tokens."""
    return cost_per_hour / 3600.0 / tokens_per_s * MILLION


def energy_kwh_per_million_tokens(average_w: float, tokens_per_s: float) -> float:
    """Energy of a million tokens at a steady power and rate of tokens."""
    return average_w / tokens_per_s * MILLION / JOULES_A_KWH
