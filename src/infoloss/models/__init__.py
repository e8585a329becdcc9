"""Models: plain ``nn.Module``s from a batch of rows to logits, with a seeded start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from infoloss.models.affine import Affine
from infoloss.models.convnet import convnet
from infoloss.models.dropout import Dropout
from infoloss.models.embedding_bag import embedding_bag
from infoloss.models.foreign import foreign
from infoloss.models.keras_cifar10 import keras_cifar10
from infoloss.models.linear import linear
from infoloss.models.mlp import mlp
from infoloss.models.pooling import PooledReLU
from infoloss.models.resnet import resnet18, resnet20, resnet32
from infoloss.models.vgg import spinal_vgg, vgg5, vgg11_bn

__all__ = [
    "MODELS",
    "Affine",
    "Dropout",
    "PooledReLU",
    "build",
    "convnet",
    "embedding_bag",
    "keras_cifar10",
    "linear",
    "mlp",
    "resnet18",
    "resnet20",
    "resnet32",
    "spinal_vgg",
    "vgg5",
    "vgg11_bn",
]

MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "linear": linear,
    "mlp": mlp,
    "convnet": convnet,
    "keras_cifar10": keras_cifar10,
    "vgg5": vgg5,
    "spinal_vgg": spinal_vgg,
    "vgg11_bn": vgg11_bn,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet18": resnet18,
    "embedding_bag": embedding_bag,
}


def build(name: str, *, classes: int, input_shape: tuple[int, ...], seed: int, **options: Any) -> nn.Module:
    """The model of that name; the same seed gives the same initial weights, and the global generator rests.

    Args:
        name: a key of ``MODELS``; ``"timm:NAME"`` or ``"hf:NAME"`` for a model of timm or transformers, if
            installed; or ``"module:function"`` for the user's own.
        classes: number C of logits.
        input_shape: of one row: (F,) features, (L,) token ids, or (channels, H, W).
        seed: of the initial weights, and of the masks of a ``Dropout``.
        options: the model's own (``hidden`` of the MLP).

    Returns:
        A float32 module from (N, *input_shape) to (N, C), on the CPU.

    Raises:
        ValueError: no such model, a shape that it cannot read, or an option that it does not have.
        ModuleNotFoundError: timm or transformers is wanted and not installed.

    Example:
        >>> first, second = (build("mlp", input_shape=(4,), classes=3, seed=7, hidden=(5,)) for _ in range(2))
        >>> bool((first[0].weight == second[0].weight).all())
        True
    """
    if name not in MODELS and ":" not in name:
        raise ValueError(
            f"unknown model {name!r}; expected {', '.join(MODELS)}, timm:NAME, hf:NAME or module:function"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in MODELS:
            return MODELS[name](classes=classes, input_shape=input_shape, **options)
        return foreign(name, classes=classes, input_shape=input_shape, **options)
