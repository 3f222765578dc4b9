"""Whether a difference is real: intervals, tests and what could have been seen, for any metric over examples.

The unit is the example. Answers to one example under several evaluation seeds are summed into its row first, and a
document or conversation that gives several questions has to be one row too: rows are drawn, left out and swapped whole,
so that what depends on each other stays together (clustered errors: Miller 2024, arXiv 2411.00640). Two models are
compared on the same examples, in pairs, which takes out how hard an example is.
"""

from __future__ import annotations

from evaluation.statistics.differences import Difference, Estimate, compare_models, compare_pairs, estimate
from evaluation.statistics.resampling import Resampling
from evaluation.statistics.wording import change_in_words, in_words, interval_in_words, number_in_words

__all__ = [
    "Difference",
    "Estimate",
    "Resampling",
    "change_in_words",
    "compare_models",
    "compare_pairs",
    "estimate",
    "in_words",
    "interval_in_words",
    "number_in_words",
]
