"""Learned absolute positions: a table of vectors added to the embeddings."""

from torch import Tensor, nn

from harness import Method, ModelSpec, Position, hookimpl


class Learned(Position):
    """x_i + p_i with a trained p of model.max_length rows.

    Paper: Vaswani et al. 2017, arXiv:1706.03762, section 3.5; Brown et al. 2020, arXiv:2005.14165 (GPT-3)
    Raises: ConfigError for sequences longer than the table
    """

    name = "learned"

    def build(self, spec: ModelSpec) -> None:
        self.table = nn.Embedding(spec.max_length, spec.dim)

    def max_length(self) -> int:
        return self.table.num_embeddings

    def embed(self, x_BTD: Tensor, position_BT: Tensor) -> Tensor:
        return x_BTD + self.table(position_BT)  # type: ignore[no-any-return]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Learned]
