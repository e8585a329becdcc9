"""The bag of embeddings, for texts as token ids."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["embedding_bag"]


def embedding_bag(
    *, classes: int, input_shape: tuple[int, ...], vocabulary: int | None = None, width: int = 64
) -> nn.Module:
    """The mean of the tokens' embeddings, then an affine map: (N, L) token ids to (N, C).

    Token 0 is padding and takes no part; a row of padding alone has the mean 0.

    Args:
        classes: number C of logits.
        input_shape: (L,).
        vocabulary: how many token ids there are, padding included; a study takes it from the data.
        width: of an embedding.

    Raises:
        ValueError: rows that are not token ids in a row; no vocabulary.
        TypeError: when called with ids that are not whole numbers by their type.

    Source: Joulin et al. (arXiv 1607.01759), without the n-grams.

    Example:
        >>> import torch
        >>> model = embedding_bag(input_shape=(4,), classes=3, vocabulary=10)
        >>> padded, bare = torch.tensor([[5, 7, 0, 0]]), torch.tensor([[7, 5]])
        >>> torch.allclose(model(padded), model(bare))
        True
    """
    if len(input_shape) != 1:
        raise ValueError(f"the model embedding_bag reads rows of token ids (L,), got shape {input_shape}")
    if vocabulary is None or vocabulary < 2 or width < 1:
        got = f"got {vocabulary} and {width}"
        raise ValueError(f"embedding_bag needs a vocabulary of 2 or more and a positive width, {got}")
    return nn.Sequential(_Mean(vocabulary, width), nn.Linear(width, classes))


class _Mean(nn.EmbeddingBag):
    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__(vocabulary, width, mode="mean", padding_idx=0)

    def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]
        if tokens.is_floating_point():
            raise TypeError(f"embedding_bag reads token ids of an integer type, got {tokens.dtype}")
        return super().forward(tokens.long())
