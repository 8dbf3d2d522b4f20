"""Packed windows over token files: batches whose order follows from the seed alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.axes.corpus import Split
from harness.axes.curriculum import Curriculum, SampleReader
from harness.data.packing import BestFit, Concatenated, Packing, Windows
from harness.data.template import IGNORED
from harness.data.token_files import TokenFiles
from harness.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class Window:
    """T + 1 tokens of one domain, padded with eos where it has fewer.

    Shapes: ids_T1 int64 of T + 1 ids
    """

    ids_T1: np.ndarray
    length: int
    """Real tokens, at most T + 1."""
    eos_id: int
    visible: int
    """Longest stretch of tokens that see each other; shorter than T where a curriculum says so."""


def document_ids(ids_T: np.ndarray, eos_id: int, visible: int) -> np.ndarray:
    """Number of the document that each token belongs to, counted from 0; ends belong to their document.

    Documents longer than `visible` are cut into stretches of that length.
    """
    ends_T = ids_T == eos_id
    starts_T = np.concatenate([[True], ends_T[:-1]])
    if visible < len(ids_T):
        starts_T |= np.arange(len(ids_T)) % visible == 0
    return np.cumsum(starts_T) - 1


def positions(document_ids_T: np.ndarray) -> np.ndarray:
    """Position of each token within its document, from 0."""
    index_T = np.arange(len(document_ids_T))
    starts_T = np.concatenate([[True], document_ids_T[1:] != document_ids_T[:-1]])
    return index_T - np.maximum.accumulate(np.where(starts_T, index_T, 0))


def language_modeling_rows(
    windows: Sequence[Window], rngs: Sequence[np.random.Generator]
) -> dict[str, Tensor]:
    """A batch that predicts each next token of its own document.

    Shapes: every tensor is B x T; labels are shifted already, -100 across documents and on padding
    """
    inputs_BT, labels_BT, documents_BT, positions_BT = [], [], [], []
    for window in windows:
        inputs_T, labels_T = window.ids_T1[:-1], window.ids_T1[1:].copy()
        documents_T = document_ids(inputs_T, window.eos_id, window.visible)
        labels_T[inputs_T == window.eos_id] = IGNORED
        labels_T[max(window.length - 1, 0) :] = IGNORED
        inputs_BT.append(inputs_T)
        labels_BT.append(labels_T)
        documents_BT.append(documents_T)
        positions_BT.append(positions(documents_T))
    rows = {
        "input_ids": inputs_BT,
        "labels_BT": labels_BT,
        "document_ids": documents_BT,
        "position_ids": positions_BT,
    }
    return {name: torch.from_numpy(np.stack(value).astype(np.int64)) for name, value in rows.items()}


class _Reader(SampleReader):
    """Samples of a source by number, for curricula that read them."""

    def __init__(self, source: PackedSource) -> None:
        self.source = source

    def __getitem__(self, index: int) -> np.ndarray:
        return self.source.window(index, visible=self.source.length).ids_T1[:-1]

    def __len__(self) -> int:
        return int(self.source.starts_D[-1])


class PackedSource:
    """Batches of packed windows: domains drawn so that their tokens have the mixture's shares, each domain's
    windows in random order, all decided by the seed alone.

    Shapes: see `rows`, by default `language_modeling_rows`; `num_bytes` and `num_tokens` are B, UTF-8 bytes
    and tokens of each window without padding
    State: round and position; a round is `planned` draws, ordered by the curriculum
    Raises: ConfigError on a length below 1, DataError where a domain has no tokens
    """

    def __init__(
        self,
        files: TokenFiles,
        *,
        length: int,
        seed: int,
        split: Split | str = Split.train,
        planned: int | None = None,
        curriculum: Curriculum | None = None,
        packing: Packing = Packing.concatenate,
        rows: Callable[
            [Sequence[Window], Sequence[np.random.Generator]], dict[str, Tensor]
        ] = language_modeling_rows,
    ) -> None:
        if length < 1:
            raise ConfigError(f"sequence_length={length} must be at least 1")
        self.files, self.length, self.seed, self.rows = files, length, seed, rows
        self.curriculum = curriculum
        self.domains = files.domains(split)
        if not self.domains:
            raise DataError(f"the corpus has no documents in the split '{Split(split).value}'")
        self.arrays = [files.tokens(split, domain) for domain in self.domains]
        for domain, array in zip(self.domains, self.arrays, strict=True):
            if len(array) < 2:
                raise DataError(f"domain '{domain}' has {len(array)} tokens in split '{split}'; at least 2")
        self.windows = [self._windows(array, packing) for array in self.arrays]
        windows_D = [len(windows) for windows in self.windows]
        self.starts_D = np.concatenate([[0], np.cumsum(windows_D)])
        weights_D = np.array([files.weights.get(domain, 0.0) for domain in self.domains])
        if weights_D.sum() <= 0:
            raise ConfigError(f"mixture gives no weight to any of the domains {self.domains}")
        self.weights_D = weights_D / weights_D.sum()
        """Share of each domain among drawn tokens."""
        tokens_D = np.array([windows.num_tokens for windows in self.windows]) / windows_D
        draws_D = self.weights_D / tokens_D  # a domain of short windows is drawn more often
        self.draws_D = draws_D / draws_D.sum()
        self.tokens_per_window = float(self.draws_D @ tokens_D)
        self.bytes_per_token_D = np.array([files.bytes_per_token(split, d) for d in self.domains])
        self.num_samples = int(self.starts_D[-1])
        self.planned = planned or self.num_samples
        self.round = self.position = 0
        self._order: np.ndarray | None = None

    def bytes_per_window(self) -> float:
        """UTF-8 bytes of text behind one window, on average over the mixture."""
        return float(self.weights_D @ self.bytes_per_token_D) * self.tokens_per_window

    def padding_share(self) -> float:
        """Share of padding in drawn windows, on average over the mixture."""
        return 1 - self.tokens_per_window / self.length

    def _windows(self, ids_N: np.ndarray, packing: Packing) -> Windows:
        if packing is Packing.best_fit:
            return BestFit(ids_N, self.length, eos_id=self.files.eos_id)
        return Concatenated(ids_N, self.length)

    def _ids(self, sample: int) -> tuple[int, np.ndarray]:
        """Domain and ids of one window."""
        domain = int(np.searchsorted(self.starts_D, sample, side="right")) - 1
        return domain, self.windows[domain].ids(int(sample - self.starts_D[domain]))

    def window(self, sample: int, *, visible: int) -> Window:
        """One sample by number."""
        ids = self._ids(sample)[1].astype(np.int64)
        padding = np.full(self.length + 1 - len(ids), self.files.eos_id, dtype=np.int64)
        return Window(
            ids_T1=np.concatenate([ids, padding]),
            length=len(ids),
            eos_id=self.files.eos_id,
            visible=max(1, min(visible, self.length)),
        )

    def next(self, size: int) -> dict[str, Tensor]:
        """The next `size` windows."""
        return self.next_rows(size, slice(0, size))

    def next_rows(self, size: int, rows: slice) -> dict[str, Tensor]:
        """The next `size` windows, of which these rows are built; `num_bytes` and `num_tokens` are of all."""
        windows: list[Window] = []
        rngs: list[np.random.Generator] = []
        bytes_B: list[float] = []
        tokens_B: list[int] = []
        wanted = range(size)[rows]
        for row in range(size):
            if self.position == self.planned:
                self.round, self.position, self._order = self.round + 1, 0, None
            if self._order is None:
                self._order = self._draw(self.round)
            sample = int(self._order[self.position])
            if row in wanted:
                visible = self.length
                if self.curriculum is not None:
                    visible = self.curriculum.visible(self.length, self.position / self.planned)
                windows.append(self.window(sample, visible=visible))
                rngs.append(np.random.default_rng([self.seed, 1, self.round, self.position]))
            domain, ids = self._ids(sample)
            tokens_B.append(len(ids) - 1)
            bytes_B.append(tokens_B[-1] * self.bytes_per_token_D[domain])
            self.position += 1
        batch = self.rows(windows, rngs)
        batch["num_bytes"] = torch.tensor(bytes_B, dtype=torch.float64)
        batch["num_tokens"] = torch.tensor(tokens_B)
        return batch

    def _draw(self, round_: int) -> np.ndarray:
        """Sample numbers of one round, in the order they are met."""
        domain_R = np.random.default_rng([self.seed, 0, round_]).choice(
            len(self.domains), size=self.planned, p=self.draws_D
        )
        order_R = np.empty(self.planned, dtype=np.int64)
        for domain in range(len(self.domains)):
            places = np.flatnonzero(domain_R == domain)
            first, last = int(self.starts_D[domain]), int(self.starts_D[domain + 1])
            order_R[places] = first + self._permuted(domain, last - first, len(places), round_)
        if self.curriculum is None:
            return order_R
        names_S = np.repeat(np.array(self.domains), np.diff(self.starts_D))
        return self.curriculum.order(order_R, domains_S=names_S, texts=_Reader(self))

    def _permuted(self, domain: int, num_windows: int, count: int, round_: int) -> np.ndarray:
        """`count` windows of a domain: each once in random order before any comes again."""
        rng = np.random.default_rng([self.seed, 2, round_, domain])
        laps = [rng.permutation(num_windows) for _ in range(-(-count // num_windows))]
        return np.concatenate([*laps, np.empty(0, dtype=np.int64)])[:count].astype(np.int64)

    def state_dict(self) -> dict[str, int]:
        """Where the source stands."""
        return {"round": self.round, "position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue where `state_dict` stood."""
        self.round, self.position, self._order = state["round"], state["position"], None
