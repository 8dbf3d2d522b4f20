"""Comparisons of fixed checkpoints: the documents are resampled, for all comparisons of a family at once.

Paper: Westfall and Young 1993 (the bootstrap of the largest studentized statistic), section 2.3
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 2000


class Documents(NamedTuple):
    """A number at each document of a task, in the task's order; NaN where it was not scored."""

    task: str
    values: Array


def apart(found: Sequence[Documents]) -> list[Array]:
    """The same over one list of documents: each task's stand behind those of the task before, NaN elsewhere.

    So documents that two comparisons share are drawn together, and those of other tasks on their own.
    """
    places: dict[tuple[str, int], slice] = {}
    size = 0
    for each in found:
        place = each.task, len(each.values)
        if place not in places:
            places[place] = slice(size, size := size + len(each.values))
    spread = []
    for each in found:
        values = np.full(size, np.nan)
        values[places[each.task, len(each.values)]] = each.values
        spread.append(values)
    return spread


def max_t_bootstrap(differences: Sequence[Array], *, level: float) -> list[tuple[float, float, float, float]]:
    """(low, high, adjusted p, standard error) of each mean difference; all intervals cover together.

    A difference that is the same at every document has no spread: its interval is that number.
    Shapes: differences, each one value a document in a common order, NaN where it was not scored
    Error: p is at least 1 / (RESAMPLES + 1)
    """
    d_KD = np.stack([np.asarray(d, dtype=np.float64) for d in differences])
    there_KD = ~np.isnan(d_KD)
    d_KD = np.where(there_KD, d_KD, 0.0)
    n_K = there_KD.sum(axis=1)
    mean_K = d_KD.sum(axis=1) / np.maximum(n_K, 1)
    deviations_KD = np.where(there_KD, d_KD - mean_K[:, None], 0.0)
    stderr_K = np.sqrt((deviations_KD**2).sum(axis=1) / np.maximum(n_K - 1, 1) / np.maximum(n_K, 1))
    moving = stderr_K > 1e-12 * np.abs(d_KD).max(axis=1)
    # One document more: where few differ, a resample may hold none of them and would seem to have no spread.
    one_K = np.abs(deviations_KD).max(axis=1) / np.maximum(n_K, 1)
    stderr_K = np.where(moving, np.hypot(stderr_K, one_K), 0.0)
    largest_B = np.zeros(RESAMPLES)
    weights_BD = resampling_weights(d_KD.shape[1])
    for block in np.array_split(np.flatnonzero(moving), int(moving.sum()) // 200 + 1):
        if len(block):
            counts_BK = np.maximum(weights_BD @ there_KD[block].T.astype(np.float64), 2)
            shift_BK = weights_BD @ deviations_KD[block].T / counts_BK
            squares_BK = weights_BD @ (deviations_KD[block] ** 2).T / counts_BK
            errors_BK = np.maximum(squares_BK - shift_BK**2, 0) / (counts_BK - 1)
            t_BK = np.abs(shift_BK) / np.sqrt(errors_BK + one_K[block] ** 2)
            largest_B = np.maximum(largest_B, t_BK.max(axis=1))
    critical = float(np.quantile(largest_B, 1 - level, method="higher"))
    found = []
    for mean, stderr, moves in zip(mean_K, stderr_K, moving, strict=True):
        if not moves:
            found.append((float(mean), float(mean), 1.0 if mean == 0 else 0.0, 0.0))
            continue
        p = (1 + float((largest_B >= abs(mean) / stderr).sum())) / (RESAMPLES + 1)
        half = critical * float(stderr)
        excluded = abs(mean) > half
        found.append((mean - half, mean + half, min(p, level) if excluded else max(p, level), float(stderr)))
    return [(float(low), float(high), float(p), stderr) for low, high, p, stderr in found]


@lru_cache(maxsize=8)
def resampling_weights(n: int) -> Array:
    """How often each of n documents is drawn, the same for every comparison; RESAMPLES x n."""
    rng = np.random.default_rng(20230331)
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)
