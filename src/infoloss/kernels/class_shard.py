"""The share of the classes that a rank of a process group holds, and what the ranks tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from infoloss.visibility import batched

__all__ = ["ClassShard", "first_order", "located", "located_head"]


@dataclass(frozen=True, eq=False)
class ClassShard:
    """The classes ``start`` to ``stop`` of ``total`` that this rank of a process group holds.

    Make it once with :meth:`of`, and give it as ``group`` to every call on this shard: a bare process
    group has to ask the other ranks for their sizes each time.
    """

    start: int
    stop: int
    total: int
    largest: int  # the most classes that any rank holds
    group: Any  # a torch.distributed.ProcessGroup

    @classmethod
    def of(cls, classes: int, group: Any = None, *, device: torch.device | str = "cpu") -> ClassShard:
        """This rank's share, the ranks' classes following each other in the order of the ranks.

        A collective call: every rank of the group makes it.

        Args:
            classes: how many classes are here; may differ between ranks, and be 0.
            group: the process group, the default one if None.
            device: where the group can send from; a group of NCCL needs a GPU.
        """
        group = dist.group.WORLD if group is None else group
        return cls._of_sizes([size for (size,) in _gathered((classes,), group, device)], group)

    @classmethod
    def of_tensor(cls, tensor: Tensor, axis: int, group: Any) -> ClassShard:
        """The share that is a tensor's class axis.

        Raises:
            ValueError: the tensors of the ranks differ in another axis too.
        """
        found = _gathered(tuple(tensor.shape), group, tensor.device)
        if len({(*shape[:axis], *shape[axis + 1 :]) for shape in found}) > 1:
            raise ValueError(
                f"the ranks of the group must differ in their classes (axis {axis}) only, but have shapes "
                f"{[tuple(shape) for shape in found]}"
            )
        return cls._of_sizes([shape[axis] for shape in found], group)

    @classmethod
    def _of_sizes(cls, sizes: Sequence[int], group: Any) -> ClassShard:
        rank = dist.get_rank(group)
        return cls(sum(sizes[:rank]), sum(sizes[: rank + 1]), sum(sizes), max(sizes), group)

    @property
    def rank(self) -> int:
        """This process's number in the group."""
        return dist.get_rank(self.group)

    def own(self, per_class: Tensor, name: str) -> Tensor:
        """The numbers of this rank's classes among those of all classes.

        Raises:
            ValueError: there are not as many numbers as classes.
        """
        if per_class.shape != (self.total,):
            raise ValueError(
                f"{name} must have shape ({self.total},), one number for each class of all ranks, "
                f"got {tuple(per_class.shape)}"
            )
        return per_class[self.start : self.stop]

    def sum(self, values: Tensor) -> Tensor:
        """Σ over ranks; each rank's own values get the gradient of the sum."""
        return Sum.apply(values, self.group)  # type: ignore[no-any-return, no-untyped-call]

    def copy(self, values: Tensor) -> Tensor:
        """Values that every rank has, for use on its own columns: their gradient is the sum over ranks.

        Hidden states before this rank's rows of a linear head, for one.
        """
        return Copy.apply(values, self.group)  # type: ignore[no-any-return, no-untyped-call]

    def highest(self, values: Tensor, *, ties: bool) -> tuple[Tensor, Tensor | None]:
        """The maximum over ranks, nan counting as infinite, and with ``ties`` the first rank that has it."""
        values = values.masked_fill(values.isnan(), torch.inf)  # the backends disagree about nan
        if not ties:
            dist.all_reduce(values, dist.ReduceOp.MAX, group=self.group)
            return values, None
        every = [torch.empty_like(values) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(every, values, group=self.group)
        maximum, first = torch.stack(every).max(0)
        return maximum, first


def _gathered(numbers: tuple[int, ...], group: Any, device: torch.device | str) -> list[list[int]]:
    own = torch.tensor(numbers, dtype=torch.int64, device=device)
    every = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(every, own, group=group)
    return torch.stack(every).tolist()


class Sum(torch.autograd.Function):
    """Σ over ranks. Its gradient is the same on every rank, and each rank's own values receive it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Any) -> Tensor:
        values = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(values, group=group)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise first_order("create_graph=True")
        return grad, None


class Copy(torch.autograd.Function):
    """What every rank has, as it is. Each rank sees a part of its gradient; the parts are added."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise first_order("create_graph=True")
        if batched(grad):
            raise first_order("is_grads_batched=True")
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad, group=ctx.group)
        return grad, None


def first_order(what: str) -> RuntimeError:
    return RuntimeError(
        f"a loss over sharded classes has first derivatives in reverse mode only, not with {what}; "
        "gather the logits for more"
    )


# -- DTensors -------------------------------------------------------------------------------------


def located(
    wide: Tensor, other: Tensor | None, group: Any, *, axis: int, names: tuple[str, str]
) -> tuple[Tensor, Tensor | None, ClassShard | None]:
    """Local tensors, and the shard of the classes that they are; None where these are all classes.

    Args:
        wide: logits, or the weight of a linear head: the tensor with a class axis.
        other: what goes with it and is the same on every rank (or a soft target, sharded likewise).
        group: None, a process group, or a :class:`ClassShard`.
        axis: the class axis of ``wide``.
        names: what the two are called in messages.

    Raises:
        ValueError: a DTensor that is not sharded over classes, or whose companion is not known to be the
            same on every rank.
        TypeError: ``group`` is something else.
    """
    if not (_is_dtensor(wide) or _is_dtensor(other)):
        return wide, other, None if group is None else _shard(wide, group, axis)
    if _is_dtensor(wide):
        mesh_axis = _class_mesh_axis(wide, axis, names[0])
        if group is None and not _goes_with(other, wide):
            raise ValueError(
                f"{names[0]} is a DTensor sharded over classes, but {names[1]} is not known to be the same "
                f"on every rank: make it a DTensor that is replicated on the same mesh, or pass group=, "
                f"which says so. Where each rank has rows of its own, gather: {names[0]}.full_tensor(), "
                "as FSDP does for a module that it wraps"
            )
        if group is None:
            group = _chunk(wide.shape[axis], wide.device_mesh.get_group(mesh_axis))  # type: ignore[attr-defined]
    elif group is None:
        raise ValueError(f"{names[1]} is a DTensor and {names[0]} is not: pass {names[1]}.full_tensor()")
    local = wide.to_local() if _is_dtensor(wide) else wide  # type: ignore[attr-defined]
    if _is_dtensor(other):
        _check_replicated(other, axis, names[1], names[0])
        other = other.to_local()  # type: ignore[union-attr]
    return local, other, _shard(local, group, axis)


def located_head(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor | None, group: Any
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, ClassShard | None]:
    """Local hidden states, weight, bias and target, and the shard of the classes; see :func:`located`.

    Raises:
        ValueError: a DTensor does not go with the weight.
    """
    own, states, shard = located(weight, hidden, group, axis=0, names=("linear_weight", "hidden"))
    assert states is not None
    if _is_dtensor(bias):
        if not _is_dtensor(weight) or _layout(bias) != _layout(weight):
            raise ValueError(
                f"linear_bias is a DTensor with placements {tuple(bias.placements)}, and "  # type: ignore[union-attr]
                "linear_weight is not sharded likewise: pass linear_bias.full_tensor() or this rank's part"
            )
        bias = bias.to_local()  # type: ignore[union-attr]
    if _is_dtensor(target):
        if shard is None:
            raise ValueError("target is a DTensor and linear_weight is not: pass target.full_tensor()")
        _check_replicated(target, target.ndim - 1, "target", "linear_weight")  # type: ignore[union-attr]
        target = target.to_local()  # type: ignore[union-attr]
    return states, own, bias, target, shard


def _layout(tensor: Any) -> tuple[Any, Any]:
    return tensor.device_mesh, tuple(tensor.placements)


def _is_dtensor(tensor: Any) -> bool:
    if tensor is None or type(tensor) in (Tensor, torch.nn.Parameter):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _shard(local: Tensor, group: Any, axis: int) -> ClassShard:
    if isinstance(group, dist.ProcessGroup):
        return ClassShard.of_tensor(local, axis, group)
    if not isinstance(group, ClassShard):
        raise TypeError(
            f"group must be a torch.distributed.ProcessGroup or an infoloss.ClassShard, got {group!r}"
        )
    if group.stop - group.start != local.shape[axis]:
        raise ValueError(
            f"the shard was made for {group.stop - group.start} classes of this rank, "
            f"got {local.shape[axis]} along axis {axis} of {tuple(local.shape)}"
        )
    return group


def _chunk(total: int, group: Any) -> ClassShard:
    """This rank's share where PyTorch has cut the classes, as ``torch.chunk`` does."""
    size = -(-total // dist.get_world_size(group))
    start = min(dist.get_rank(group) * size, total)
    return ClassShard(start, min(start + size, total), total, size, group)


def _class_mesh_axis(tensor: Any, axis: int, name: str) -> int:
    """Which axis of its mesh shards the classes of a DTensor, all others having copies."""
    from torch.distributed.tensor import Replicate, Shard

    over_classes = [type(p) is Shard and p.dim == axis for p in tensor.placements]
    others = [p for p, found in zip(tensor.placements, over_classes, strict=True) if not found]
    if sum(over_classes) != 1 or not all(type(p) is Replicate for p in others):
        raise ValueError(
            f"{name} is a DTensor with placements {tuple(tensor.placements)}: it counts as a shard of the "
            f"classes only with Shard({axis}) on one axis of its mesh and Replicate() on the others. "
            f"Gather it, {name}.full_tensor(), or redistribute it"
        )
    return over_classes.index(True)


def _goes_with(other: Any, wide: Any) -> bool:
    return other is None or (_is_dtensor(other) and other.device_mesh == wide.device_mesh)


def _check_replicated(tensor: Any, axis: int, name: str, wide: str) -> None:
    from torch.distributed.tensor import Replicate

    if tensor.is_floating_point() and name == "target":
        _class_mesh_axis(tensor, axis, name)
    elif not all(type(p) is Replicate for p in tensor.placements):
        raise ValueError(
            f"{name} is a DTensor with placements {tuple(tensor.placements)}: every rank that holds a shard "
            f"of the classes needs all of it, {name}.redistribute(placements=[Replicate(), …]). Where each "
            f"rank has rows of its own, pass {name}.to_local() and gather the classes: {wide}.full_tensor()"
        )
