"""Curricula: the order of the samples drawn."""

import numpy as np
import pytest
from harness_plugins.curriculum.difficulty import Difficulty, Measure
from harness_plugins.curriculum.length_ramp import LengthRamp
from harness_plugins.curriculum.none import NoCurriculum
from harness_plugins.curriculum.staged import Staged

from harness import ConfigError
from harness.conformance.test_curriculum import DOMAINS_S, Samples, drawn


def test_none_keeps_the_order() -> None:
    assert np.array_equal(NoCurriculum().order(drawn(), domains_S=DOMAINS_S, texts=Samples()), drawn())


def test_staged_takes_domains_one_after_another_in_the_order_drawn() -> None:
    method = Staged(Staged.Config(domains=["docs", "code"], keep_share=0.0))
    order_R = method.order(drawn(), domains_S=DOMAINS_S, texts=Samples())
    is_code = DOMAINS_S[order_R] == "code"
    assert (np.diff(is_code.astype(int)) >= 0).all()
    assert np.array_equal(order_R[is_code], drawn()[DOMAINS_S[drawn()] == "code"])


def test_staged_keeps_a_share_for_later() -> None:
    order = np.arange(1000) % 50
    method = Staged(Staged.Config(domains=["docs", "code"], keep_share=0.1))
    names = DOMAINS_S[method.order(order, domains_S=DOMAINS_S, texts=Samples())]
    docs = int((names == "docs").sum())
    late = names[round(0.9 * docs) :]
    assert (names[: round(0.9 * docs)] == "docs").all()
    assert (late == "docs").sum() == pytest.approx(0.1 * docs, abs=2)
    halves = (late[: len(late) // 2] == "docs").sum(), (late[len(late) // 2 :] == "docs").sum()
    assert min(halves) > 0.3 * sum(halves)


def test_staged_names_unknown_domains() -> None:
    with pytest.raises(ConfigError, match=r"names \['web'\]; the corpus has \['code', 'docs'\]"):
        Staged(Staged.Config(domains=["web"])).order(drawn(), domains_S=DOMAINS_S, texts=Samples())


def test_length_ramp_grows_linearly_to_the_window() -> None:
    method = LengthRamp(LengthRamp.Config(start=32, share=0.5))
    assert [method.visible(128, p) for p in (0.0, 0.25, 0.5, 1.0)] == [32, 80, 128, 128]
    assert method.visible(16, 0.0) == 16


def test_difficulty_puts_few_different_tokens_first() -> None:
    samples = Samples()
    method = Difficulty(Difficulty.Config(measure=Measure.diversity))
    order_R = method.order(np.arange(50), domains_S=DOMAINS_S, texts=samples)
    shares = [len(np.unique(samples[int(s)])) for s in order_R]
    assert shares == sorted(shares)
    turned = Difficulty(Difficulty.Config(measure=Measure.diversity, descending=True))
    again = turned.order(np.arange(50), domains_S=DOMAINS_S, texts=samples)
    assert [len(np.unique(samples[int(s)])) for s in again] == shares[::-1]


def test_rarity_is_the_mean_surprise_of_the_tokens() -> None:
    samples = Samples()
    order_R = Difficulty().order(np.arange(50), domains_S=DOMAINS_S, texts=samples)
    tokens = np.concatenate([samples[n] for n in range(50)])
    share = np.bincount(tokens) / len(tokens)
    scores = [float(-np.log(share[samples[int(s)]]).mean()) for s in order_R]
    assert scores == sorted(scores)


def test_some_samples_keep_a_random_place() -> None:
    order = np.random.default_rng(0).permutation(50)
    free = Difficulty(Difficulty.Config(random_share=1.0))
    assert np.array_equal(free.order(order, domains_S=DOMAINS_S, texts=Samples()), order)
