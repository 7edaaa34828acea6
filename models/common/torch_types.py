"""What torch's own types leave open."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from torch import Tensor, nn

Kind = TypeVar("Kind", bound=nn.Module)


class ModuleListOf(nn.ModuleList, Generic[Kind]):
    """An `nn.ModuleList` whose modules are of one kind, whose attributes are known."""

    if TYPE_CHECKING:

        def __init__(self, modules: Iterable[Kind]) -> None: ...

        def __iter__(self) -> Iterator[Kind]: ...

        @overload
        def __getitem__(self, index: slice) -> ModuleListOf[Kind]: ...

        @overload
        def __getitem__(self, index: int) -> Kind: ...

        def __getitem__(self, index: int | slice) -> Kind | ModuleListOf[Kind]: ...


def submodule(module: nn.Module, name: str, kind: type[Kind]) -> Kind:
    """The part of a module with this dotted name.

    Raises:
        TypeError: it is of another kind.
    """
    part = module.get_submodule(name)
    if not isinstance(part, kind):
        raise TypeError(f"{name} is a {type(part).__name__}, not a {kind.__name__}")
    return part


def bias_of(layer: nn.Conv2d) -> Tensor:
    """The bias of a convolution that has one."""
    if layer.bias is None:
        raise TypeError(f"{layer} has no bias")
    return layer.bias


def grid_of(maps: Tensor) -> tuple[int, int]:
    """Rows and columns of maps (..., h, w)."""
    return maps.shape[-2], maps.shape[-1]
