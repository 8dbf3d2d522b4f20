"""Objectives: span-corruption invariants of T5, the shares of UL2, prefixes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness_plugins.objective._spans import noise_mask

from harness.registry.known import registry

T = 513
SENTINELS = np.arange(10_000, 10_101)


def build(name: str, **options: Any) -> Any:
    method = registry().get("objective", name)
    return method(method.Config(**options))


def windows(count: int = 40) -> list[np.ndarray]:
    return [np.random.default_rng(i).permutation(9000)[:T].astype(np.int64) for i in range(count)]


def test_noise_density_is_within_one_percent_and_spans_have_the_mean_length() -> None:
    rng = np.random.default_rng(0)
    for density, span in ((0.15, 3.0), (0.5, 8.0), (0.15, 64.0)):
        masks = [
            noise_mask(4096, density=density, mean_span=span, max_spans=1000, rng=rng) for _ in range(60)
        ]
        share = np.mean([mask.mean() for mask in masks])
        starts = sum(int((mask & ~np.concatenate([[False], mask[:-1]])).sum()) for mask in masks)
        assert share == pytest.approx(density, abs=0.01)
        assert sum(int(mask.sum()) for mask in masks) / starts == pytest.approx(span, rel=0.2)


def test_span_starts_are_spread_over_the_window() -> None:
    rng = np.random.default_rng(0)
    masks = [noise_mask(100, density=0.15, mean_span=3, max_spans=100, rng=rng) for _ in range(3000)]
    share_S = np.mean(masks, axis=0)
    assert not share_S[0]
    assert share_S[10:90].min() > 0.09
    assert share_S[10:90].max() < 0.24


@pytest.mark.parametrize("encoder", [False, True])
def test_denoising_restores_the_window(encoder: bool) -> None:
    """Every token once; sentinels in order, each once in the source and once in the target."""
    objective = build("denoising")
    for seed, window_T in enumerate(windows()):
        example = objective.example(
            window_T, np.random.default_rng(seed), encoder=encoder, sentinels=SENTINELS
        )
        if encoder:
            source = example.source_S.tolist()
            target = [*example.inputs_T[:1].tolist(), *example.labels_T.tolist()]
            used = window_T.tolist()
        else:
            source = example.inputs_T[: example.prefix_length].tolist()
            target = example.labels_T[example.prefix_length - 1 :].tolist()
            used = window_T[: len(source) + len(target)].tolist()
        spans: dict[int, list[int]] = {}
        for token in target:
            if token >= 10_000:
                assert token == 10_000 + len(spans)
                spans[token] = []
            else:
                spans[10_000 + len(spans) - 1].append(token)
        assert [token for token in source if token >= 10_000] == sorted(spans)[:-1]
        restored = [t for token in source for t in spans.get(token, [token])]
        assert restored == used[: len(restored)]
        assert spans.pop(10_000 + len(spans) - 1) == [], "a last sentinel ends the target"
        hidden = sum(map(len, spans.values()))
        assert hidden / len(restored) == pytest.approx(0.15, abs=0.01)
        assert len(example.inputs_T) <= T


def test_denoising_without_an_encoder_uses_almost_all_of_the_window() -> None:
    example = build("denoising").example(
        windows(1)[0], np.random.default_rng(0), encoder=False, sentinels=SENTINELS
    )
    assert T - 3 <= len(example.inputs_T) + 1 <= T


def test_mixture_of_denoisers_draws_its_modes_by_share() -> None:
    objective = build("mixture_of_denoisers", regular_share=0.25, extreme_share=0.25, sequential_share=0.5)
    sentinels = np.arange(10_000, 10_000 + objective.num_sentinels())
    rng = np.random.default_rng(0)
    counts = {int(token): 0 for token in sentinels[-3:]}
    window_T = windows(1)[0]
    for _ in range(600):
        example = objective.example(window_T, rng, encoder=True, sentinels=sentinels)
        counts[int(example.source_S[0])] += 1
    assert [count / 600 for count in counts.values()] == pytest.approx([0.25, 0.25, 0.5], abs=0.06)


def test_prefixes_are_read_and_the_rest_is_predicted() -> None:
    objective = build("prefix_language_modeling", min_share=0.25, max_share=0.25)
    window_T = windows(1)[0]
    example = objective.example(window_T, np.random.default_rng(0), encoder=False, sentinels=SENTINELS[:0])
    assert example.prefix_length == 128
    assert (example.labels_T[:127] == -100).all()
    assert (example.labels_T[127:] == window_T[128:]).all()


def test_impossible_options_are_refused() -> None:
    from harness.errors import ConfigError

    for name, options in (
        ("denoising", {"density": 1.0}),
        ("denoising", {"mean_span": 0.5}),
        ("mixture_of_denoisers", {"regular_share": 0.9}),
        ("prefix_language_modeling", {"min_share": 0.8, "max_share": 0.2}),
    ):
        with pytest.raises(ConfigError, match=r"objective\."):
            build(name, **options)


def test_the_targets_of_the_papers_figure() -> None:
    """Figure 2 of Raffel et al.: <X> for inviting <Y> last <Z>."""
    from harness_plugins.objective._spans import corrupted

    tokens = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])  # Thank you for inviting me to your party last week
    noise = np.array([0, 0, 1, 1, 0, 0, 0, 0, 1, 0], dtype=bool)
    source, target = corrupted(tokens, noise, np.array([100, 101, 102]))
    assert source.tolist() == [1, 2, 100, 5, 6, 7, 8, 101, 10]
    assert target.tolist() == [100, 3, 4, 101, 9, 102]


def test_more_spans_than_sentinels_are_refused_whichever_denoiser_is_drawn() -> None:
    """A window of 2,049 tokens takes round(1024 / 3) = 341 spans at density 0.5, and round(307 / 3) = 102."""
    from harness.errors import ConfigError

    for name, most, needed in (("mixture_of_denoisers", 340, 341), ("denoising", 101, 102)):
        window_T = np.arange(2049 if name == "mixture_of_denoisers" else 2048)
        for seed in range(5):
            objective = build(name, max_spans=most)
            sentinels = np.arange(10_000, 10_000 + objective.num_sentinels())
            with pytest.raises(ConfigError, match=rf"objective\.max_spans={most}, but .* take {needed}"):
                objective.example(window_T, np.random.default_rng(seed), encoder=True, sentinels=sentinels)
            objective = build(name, max_spans=needed)
            sentinels = np.arange(10_000, 10_000 + objective.num_sentinels())
            objective.example(window_T, np.random.default_rng(seed), encoder=True, sentinels=sentinels)
