"""Swap functions in the code of a loaded network.

A network calls its ops through the globals of its classes' methods: functions that stand there, or functions of modules
that stand there. A pickled network brings a source of its own, so these dictionaries are the only sure place to swap.
A function is known by its name and the names of its parameters: two code bases use one name for different functions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class Slot:
    """One entry of one dictionary of globals, before and after."""

    namespace: dict[str, Any]
    key: str
    theirs: Callable[..., Any]
    ours: Callable[..., Any]

    def __str__(self) -> str:
        return f"{self.namespace.get('__name__', '?')}.{self.key}"


@dataclass(frozen=True, slots=True)
class Patch:
    """What was swapped; as a context manager it is undone at the end of the block."""

    slots: tuple[Slot, ...]  # empty where an earlier patch had swapped everything
    left: tuple[str, ...]  # functions of a known name with other parameters

    @property
    def replaced(self) -> tuple[str, ...]:
        """The functions that were swapped, as ``module.function``."""
        return tuple(str(slot) for slot in self.slots)

    def undo(self) -> None:
        """Put back what this patch replaced."""
        for slot in self.slots:
            slot.namespace[slot.key] = slot.theirs

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.undo()

    def __str__(self) -> str:
        lines = [f"replaced {name}" for name in self.replaced]
        return "\n".join(lines + [f"left {name}: other parameters" for name in self.left])


def swap(module: nn.Module, functions: Sequence[FunctionType]) -> Patch:
    """Replace, in the code of ``module`` and all modules inside, what has the name and parameters of ``functions``.

    Raises:
        ValueError: none of them is there.
    """
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"patch: module must be a torch.nn.Module, got {type(module).__name__}; pass the network itself"
        )
    slots: list[Slot] = []
    left: list[str] = []
    for namespace in _namespaces(module):
        for key, value in namespace.items():
            namesakes = [ours for ours in functions if inspect.isfunction(value) and value.__name__ == ours.__name__]
            if namesakes:
                parameters = _parameters(value)
                match = next((ours for ours in namesakes if _parameters(ours) == parameters), None)
                if match is None:
                    left.append(f"{namespace.get('__name__', '?')}.{key}({', '.join(parameters)})")
                else:
                    slots.append(Slot(namespace, key, value, match))
    if not slots:
        known = ", ".join(dict.fromkeys(ours.__name__ for ours in functions))
        raise ValueError(
            f"patch: the code of {type(module).__name__} must use one of {known} with its usual parameters, "
            f"got {'; '.join(left) or 'none of them'}; load the network with its original Python code"
        )
    new = tuple(slot for slot in slots if slot.theirs is not slot.ours)
    for slot in new:
        slot.namespace[slot.key] = slot.ours
    return Patch(new, tuple(left))


def _namespaces(module: nn.Module) -> list[dict[str, Any]]:
    """The globals of all methods of all classes, and those of the modules in them, each once."""
    found: dict[int, dict[str, Any]] = {}
    for function in _methods(module):
        names = function.__globals__
        inner = [vars(value) for value in names.values() if isinstance(value, ModuleType) and _theirs(value.__name__)]
        found |= {id(namespace): namespace for namespace in [names, *inner]}
    return list(found.values())


def _methods(module: nn.Module) -> Iterator[FunctionType]:
    classes = dict.fromkeys(cls for child in module.modules() for cls in type(child).__mro__)
    for cls in classes:
        if _theirs(cls.__module__):
            methods = (inspect.unwrap(value) for value in vars(cls).values() if inspect.isfunction(value))
            yield from (method for method in methods if inspect.isfunction(method))


def _theirs(module_name: str) -> bool:
    return module_name.partition(".")[0] not in ("torch", "mmif", "builtins")


def _parameters(function: FunctionType) -> tuple[str, ...]:
    """Names of the parameters; of the function inside where a profiling decorator shows ``*args, **kwargs`` only."""
    parameters = inspect.signature(function).parameters
    if any(p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values()):
        return tuple(parameters)
    inside = [cell.cell_contents for cell in function.__closure__ or ()]
    named = [value for value in inside if inspect.isfunction(value) and value.__name__ == function.__name__]
    return tuple(inspect.signature(named[0]).parameters) if named else tuple(parameters)
