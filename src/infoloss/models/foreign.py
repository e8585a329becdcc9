"""Models from elsewhere: the user's own function, timm, transformers."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from infoloss.named import named

__all__ = ["foreign"]


def foreign(name: str, *, classes: int, input_shape: tuple[int, ...], **options: Any) -> nn.Module:
    """The model that a function of that name makes, or that timm or transformers know by it.

    Args:
        name: ``"module:function"``, ``"timm:NAME"`` or ``"hf:NAME"``.
        classes: number C of logits.
        input_shape: of a row.
        options: passed on; ``pretrained`` (default: false) of timm's and transformers' models loads weights.

    Raises:
        ValueError: no such function, or it cannot be called with what is there.
        TypeError: it made something that is not an ``nn.Module``.
        ModuleNotFoundError: timm or transformers is not installed.
    """
    source, _, model = name.partition(":")
    make = {"timm": _timm, "hf": _transformers}.get(source)
    if make is not None:
        return make(model, classes, input_shape, **options)
    return _users(name, named(name), classes, input_shape, options)


def _users(
    name: str, make: Callable[..., Any], classes: int, input_shape: tuple[int, ...], options: dict[str, Any]
) -> nn.Module:
    if not callable(make):
        raise ValueError(f"the model {name} is {type(make).__name__}; expected a function that makes a model")
    signature = inspect.signature(make)
    takes = signature.parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    counted = "num_classes" if "num_classes" in takes else "classes"
    shaped = {"input_shape": input_shape} if "input_shape" in takes or anything else {}
    given = {counted: classes, **shaped, **options}
    try:
        signature.bind(**given)
    except TypeError as error:
        raise ValueError(
            f"the model {name}{signature} cannot be called: {error}; it is given {', '.join(given)} "
            "(classes= or num_classes=, input_shape= where it has it, and the options of the plan)"
        ) from None
    model = make(**given)
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model {name} made {type(model).__name__}; expected a torch.nn.Module")
    if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        # Lazy layers learn their sizes, and draw their weights, from the first rows that they see.
        with torch.no_grad():
            model.eval()(torch.zeros(2, *input_shape))
        model.train()
    return model


def _timm(
    name: str, classes: int, input_shape: tuple[int, ...], pretrained: bool = False, **options: Any
) -> nn.Module:
    timm = _installed("timm", f"timm:{name}")
    if len(input_shape) != 3:
        raise ValueError(
            f"the model timm:{name} reads images (channels, height, width), got rows of shape {input_shape}"
        )
    model: nn.Module = timm.create_model(
        name, pretrained=pretrained, num_classes=classes, in_chans=input_shape[0], **options
    )
    return model


def _transformers(
    name: str, classes: int, input_shape: tuple[int, ...], pretrained: bool = False, **options: Any
) -> nn.Module:
    transformers = _installed("transformers", f"hf:{name}")
    task = "Image" if len(input_shape) == 3 else "Sequence"
    auto = getattr(transformers, f"AutoModelFor{task}Classification")
    if pretrained:
        # The head that the weights come with has another number of classes.
        model = auto.from_pretrained(name, num_labels=classes, ignore_mismatched_sizes=True, **options)
    else:
        config = transformers.AutoConfig.from_pretrained(name, num_labels=classes, **options)
        model = auto.from_config(config)
    return _Images(model) if task == "Image" else _Sequences(model)


class _Images(nn.Module):
    """The logits alone of a model of transformers that reads images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=images).logits
        return logits


class _Sequences(nn.Module):
    """The logits alone of a model of transformers that reads token ids; padding is masked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.padding = getattr(model.config, "pad_token_id", None) or 0

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens.long()
        logits: Tensor = self.model(input_ids=tokens, attention_mask=(tokens != self.padding).long()).logits
        return logits


def _installed(package: str, name: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f"the model {name} needs {package}: pip install {package}", name=package
        ) from None
