"""Planted bugs in the model axes: each suite must find them."""

import dataclasses

import pytest
import torch
from told import told
from torch import nn

from harness import Architecture, Attention, FeedForward, Norm, NormPosition, Position
from harness.conformance import test_architecture as architecture
from harness.conformance import test_attention as attention
from harness.conformance import test_feed_forward as feed_forward
from harness.conformance import test_norm as norm
from harness.conformance import test_norm_position as norm_position
from harness.conformance import test_position as position


class LeakyAttention(Attention):
    """Reads the future."""

    name = "leaky"

    def attend(self, q, k, v, view, position):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=False)


class EagerAttention(Attention):
    """Its mask is one off: a token reads the next one."""

    name = "eager"

    def attend(self, q, k, v, view, position):
        allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2] + 1)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


class ShyAttention(Attention):
    """Its mask is one off: a token reads those before it, and not itself."""

    name = "shy"

    def mask(self, b, h, q, k):
        return q > k


class DeafAttention(Attention):
    """Ignores documents and padding."""

    name = "deaf"

    def attend(self, q, k, v, view, position):
        allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


class HoardingAttention(Attention):
    """Writes all scores out, and does not say so."""

    name = "hoarding"

    def attend(self, q, k, v, view, position):
        allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
        scores = (q @ k.transpose(-1, -2) * self.scale).masked_fill(~allowed, float("-inf"))
        return scores.softmax(dim=-1) @ v


class ForgetfulAttention(Attention):
    """Its `keys` leave out what its mask allows."""

    name = "forgetful"

    def keys(self, q_start, q_end, num_keys):
        return slice(max(0, q_start - 2), q_end)


class SinglePrecisionAttention(Attention):
    """Computes in float32 whatever it is given."""

    name = "single_precision"

    def attend(self, q, k, v, view, position):
        return super().attend(q.float(), k.float(), v.float(), view, position).to(q.dtype)


class ColdAttention(Attention):
    """Does not train its keys."""

    name = "cold"

    def project_keys(self, x):
        k, v = super().project_keys(x)
        return k.detach(), v


class RandomAttention(Attention):
    """Drops values while evaluating."""

    name = "random"

    def attend(self, q, k, v, view, position):
        return torch.nn.functional.dropout(super().attend(q, k, v, view, position), 0.1, training=True)


class TransientAttention(Attention):
    """Keeps a weight that no checkpoint holds."""

    name = "transient"

    def build(self, spec):
        super().build(spec)
        self.register_buffer("gain", torch.rand(1) + 1, persistent=False)

    def attend(self, q, k, v, view, position):
        return self.gain * super().attend(q, k, v, view, position)


class CoarseAttention(Attention):
    """Rounds its output to three bits."""

    name = "coarse"

    def attend(self, q, k, v, view, position):
        out = super().attend(q, k, v, view, position)
        return out if q.dtype != torch.bfloat16 else (out * 4).round() / 4


class BatchAttention(Attention):
    """Mixes the rows of a batch."""

    name = "batch"

    def attend(self, q, k, v, view, position):
        out = super().attend(q, k, v, view, position)
        return out + out.mean(0, keepdim=True)


class SlotPosition(Position):
    """Counts tensor columns instead of positions."""

    name = "slots"

    def embed(self, x, position):
        return x + torch.arange(x.shape[1], dtype=x.dtype)[:, None]


class MeltingPosition(Position):
    """Loses its table on the meta device."""

    name = "melting"

    def build(self, spec):
        self.register_buffer("table", torch.ones(4), persistent=False)


class CrookedBias(Position):
    """A bias that depends on the shape of its arguments."""

    name = "crooked"

    def has_bias(self):
        return True

    def bias(self, h, q, k):
        return (q - q.min() + k - h).float()


class MixingFeedForward(FeedForward):
    """Reads other positions."""

    name = "mixing"

    def forward(self, x):
        return super().forward(x.cumsum(1))

    def activation(self, x):
        return x.relu()


class SizedNorm(Norm):
    """Does not normalise."""

    name = "sized"

    def build(self, dim, spec):
        return nn.Linear(dim, dim)


class Renamed(nn.RMSNorm):
    """Holds its weight under another name."""

    def __init__(self, dim):
        super().__init__(dim, elementwise_affine=False)
        self.gain = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return super().forward(x) * self.gain


class RenamedNorm(Norm):
    """Calls its weight a gain."""

    name = "renamed"

    def build(self, dim, spec):
        return Renamed(dim)


class MeanNorm(Norm):
    """Normalises a whole sequence."""

    name = "mean"

    def build(self, dim, spec):
        return nn.GroupNorm(1, 5, affine=False)


class LostResidual(NormPosition):
    """Forgets to scale the residual, and one of its norms."""

    name = "lost"

    def num_norms(self):
        return 2

    def __call__(self, x, sublayer, norms, residual_scale):
        return x + sublayer(norms[0](x))


class OpenArchitecture(Architecture):
    """Everything sees everything."""

    name = "open"

    def visible(self, q, k, prefix_length):
        return (k <= q) | (k >= 0)


class DeafArchitecture(Architecture):
    """Asks for a prefix and ignores it."""

    name = "deaf"

    @classmethod
    def uses_prefix(cls):
        return True


PLANTED = [
    (attention.test_future_tokens_do_not_leak, LeakyAttention),
    (attention.test_documents_do_not_see_each_other, DeafAttention),
    (attention.test_padding_changes_nothing, DeafAttention),
    (attention.test_keys_hold_all_that_the_mask_allows, ForgetfulAttention),
    (attention.test_float64_stays_float64, SinglePrecisionAttention),
    (attention.test_cached_decoding_equals_the_full_forward, SinglePrecisionAttention),
    (attention.test_gradients_reach_every_parameter, ColdAttention),
    (attention.test_two_passes_are_equal, RandomAttention),
    (attention.test_state_dict_round_trip, TransientAttention),
    (attention.test_bfloat16_error_is_at_most_twice_the_reference, CoarseAttention),
    (attention.test_rows_of_a_batch_do_not_see_each_other, BatchAttention),
    (position.test_padding_changes_nothing, SlotPosition),
    (position.test_documents_do_not_see_each_other, SlotPosition),
    (position.test_cached_decoding_equals_the_full_forward, SlotPosition),
    (position.test_buffers_can_be_computed_anew, MeltingPosition),
    (position.test_the_bias_is_what_it_says, CrookedBias),
    (feed_forward.test_positions_do_not_mix, MixingFeedForward),
    (norm.test_the_size_of_a_large_input_does_not_matter, SizedNorm),
    (norm.test_the_size_of_a_large_input_does_not_matter, MeanNorm),
    (norm.test_parameters_are_called_weight_and_bias, RenamedNorm),
    (norm_position.test_every_norm_is_used_once, LostResidual),
    (norm_position.test_the_residual_path_is_kept_and_scaled, LostResidual),
    (architecture.test_without_a_prefix_the_stack_is_causal, OpenArchitecture),
    (architecture.test_future_tokens_do_not_leak, OpenArchitecture),
    (architecture.test_what_it_reads_besides_tokens_matters, DeafArchitecture),
]


@pytest.mark.parametrize(("test", "broken"), PLANTED, ids=[f"{t.__name__}-{b.__name__}" for t, b in PLANTED])
def test_the_suite_finds_a_planted_bug(test, broken):
    assert dataclasses.is_dataclass(broken.Config)
    with told():
        test(broken)


def test_scores_that_the_plan_does_not_know_are_found():
    with pytest.raises(AssertionError, match="kept_values"):
        attention.test_a_layer_keeps_no_more_than_the_plan_counts(HoardingAttention, 200)


@pytest.mark.parametrize(
    ("test", "broken", "says"),
    [
        (attention.test_future_tokens_do_not_leak, EagerAttention, "a token reads what follows it"),
        (attention.test_a_token_reads_itself, ShyAttention, "a token may not read itself"),
    ],
)
def test_a_mask_that_is_one_off_is_named(test, broken, says):
    with told(says):
        test(broken)


class SlotWindow(Attention):
    """A window that frees keys by columns, whatever padding stands between them."""

    name = "slot_window"

    def mask(self, b, h, q, k):
        return (q - k).abs() < 3

    def keys(self, q_start, q_end, num_keys):
        return slice(max(0, q_start - 2), min(num_keys, q_end + 2))

    def read(self, cache, k, v, view):
        return super().read(cache, k, v, dataclasses.replace(view, ordered=True, memo={}))


class ForgottenOffset(Position):
    """A bias whose keys count from the first one of a call."""

    name = "forgotten_offset"

    def has_bias(self):
        return True

    def bias(self, h, q, k):
        return -0.01 * (q - k + k.flatten()[0]).double().square() * (h + 1)


@pytest.mark.parametrize("broken", [SlotWindow, ForgottenOffset, DeafAttention, SlotPosition])
def test_the_suite_of_pairs_finds_a_planted_bug(broken):
    from harness.conformance import test_pairs as suite
    from harness.registry.known import registry

    other = registry().get("norm", "rmsnorm")
    with told():
        suite.test_a_pair_computes_the_same_however_it_is_run((broken, other))
