"""A classifier: a model between rows as they are stored and logits in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from infoloss.training.pixels import Normalisation, fractions

__all__ = ["PRECISIONS", "Classifier"]

PRECISIONS = ("float32", "bfloat16")


class Classifier(nn.Module):
    """Normalises the rows, runs the model in the precision asked for, and gives logits in float32.

    Images lie in memory with their channels last, which convolutions on a CPU prefer; so do the weights.

    Args:
        model: from normalised rows to (n, C).
        classes: C, which is checked.
        normalisation: of images; None leaves the rows as they are.
        precision: "bfloat16" runs the model under autocast; its weights, and the loss, stay in float32.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> classifier = Classifier(model, classes=2, normalisation={"mean": [0.5] * 3, "std": [0.25] * 3})
        >>> classifier(torch.randint(256, (5, 3, 2, 2), dtype=torch.uint8)).shape
        torch.Size([5, 2])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        classes: int,
        normalisation: Normalisation | None = None,
        precision: str = "float32",
    ) -> None:
        super().__init__()
        self.model = model
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.classes, self.precision = classes, precision
        self.normalised = normalisation is not None
        for name, values in (normalisation or {}).items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None])

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self._in_precision(self._prepared(rows))
        if logits.shape != (len(rows), self.classes):
            raise ValueError(
                f"the model gives logits of shape {tuple(logits.shape)}; expected (n, classes) = "
                f"({len(rows)}, {self.classes})"
            )
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _prepared(self, rows: Tensor) -> Tensor:
        rows = fractions(rows)
        if self.normalised:
            rows = (rows - self.mean).div_(self.std)
        return rows.contiguous(memory_format=torch.channels_last) if rows.ndim == 4 else rows

    def _in_precision(self, rows: Tensor) -> Tensor:
        if self.precision == "float32":
            return self.model(rows)  # type: ignore[no-any-return]
        with torch.autocast(rows.device.type, torch.bfloat16):
            return self.model(rows)  # type: ignore[no-any-return]
