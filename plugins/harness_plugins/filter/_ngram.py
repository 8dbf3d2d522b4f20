"""A byte n-gram model: the quick, offline measure of how ordinary a text is."""

from collections.abc import Iterable

import numpy as np

TABLE = 1 << 22
ORDERS = 5


class ByteNgram:
    """Interpolated byte n-grams (contexts of 0 to 4 bytes) in hashed count tables.

    Paper: Wenzek et al. 2019, arXiv:1911.00359 (CCNet filters by a 5-gram model's perplexity)
    Error: hash collisions add counts; at 1 MB of text fewer than a tenth of the entries collide
    """

    def __init__(self, texts: Iterable[str]) -> None:
        data = np.frombuffer("\n".join(texts).encode(), dtype=np.uint8).astype(np.int64)
        self.contexts, self.pairs = [], []
        for order in range(ORDERS):
            context, pair = self._codes(data, order)
            self.contexts.append(np.bincount(context, minlength=TABLE).astype(np.float32))
            self.pairs.append(np.bincount(pair, minlength=TABLE).astype(np.float32))

    def bits_per_byte(self, text: str) -> float:
        """Mean surprise of a text's bytes."""
        data = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)
        if not len(data):
            return float("nan")
        probability = np.full(len(data), 1 / 256)
        for order in range(ORDERS):
            context, pair = self._codes(data, order)
            trust = 4.0
            probability = (self.pairs[order][pair] + trust * probability) / (
                self.contexts[order][context] + trust
            )
        return float(-np.log2(probability).mean())

    @staticmethod
    def _codes(data: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
        """Table entries of each byte's context of `order` bytes, and of context and byte together."""
        code = np.full(len(data), order, dtype=np.int64)
        for back in range(order, 0, -1):
            shifted = np.concatenate([np.zeros(back, dtype=np.int64), data[:-back]])[: len(data)]
            code = (code * 1_000_003 + shifted + 1) % 2_147_483_647
        pair = (code * 1_000_003 + data + 257) % 2_147_483_647
        return code % TABLE, pair % TABLE
