"""``mmif-train gan``, ``encoder`` and ``publish``: options from dataclasses, a YAML file and the command line."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn, get_type_hints

from mmif.commands import cli
from mmif.config import from_preset, with_overrides
from mmif.options import spelled
from mmif.train.config import EncoderTrainConfig, GanConfig
from mmif.train.publish import PublishConfig, publish

STAGES: dict[str, tuple[type, str]] = {
    "gan": (GanConfig, "pre-train the StyleGAN2 generator"),
    "encoder": (EncoderTrainConfig, "train the encoder, the pre-modulation and the RGB branch"),
    "publish": (PublishConfig, "write a run's averaged weights as a checkpoint to ship"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``mmif-train``."""
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        """Says what is wrong as all commands do; its own way takes several lines and leaves out the command."""

        def format_help(self) -> str:
            return super().format_help().replace(" \b", "")  # it takes back a blank, where it is obeyed

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            words = re.sub(r'^Parser key "(\w+)"', lambda key: spelled(key[1]), " ".join(message.split()))
            print(f"mmif-train: error: {cli.escaped(words)}", file=sys.stderr)
            raise SystemExit(2)

    parser = Parser(prog="mmif-train", description="The two stages of training; publish writes weights to ship.")
    stages = parser.add_subcommands(dest="stage", required=True)
    for name, (options, text) in STAGES.items():
        stage = Parser(description=text, print_config="--print-config")
        stage.add_argument("--config", action="config", help="YAML file with any of these options")
        _add_options(stage, options)
        stages.add_subcommand(name, stage, help=text)
    cli.run(_train, parser, argv)


def _add_options(parser: Any, options: type) -> None:
    hints, helps = get_type_hints(options), _docstrings(options)
    for field in dataclasses.fields(options):
        add = partial(parser.add_argument, spelled(field.name), help=helps[field.name])
        required = field.default is dataclasses.MISSING
        if field.name == "override":
            add(nargs="*", default=[])
        elif hints[field.name] is bool:
            add(type=bool, nargs="?", const=True, default=field.default)
        else:
            add(type=hints[field.name], required=required, **({} if required else {"default": field.default}))


def _docstrings(cls: type) -> dict[str, str]:
    """The text below each field of a dataclass, which Python itself does not keep."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        (tree,) = ast.parse(inspect.getsource(base)).body
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = str(text.value.value)
    return found


def _train(args: Any) -> None:
    values = {k: v for k, v in vars(args[args.stage]).items() if k != "config"}
    values |= {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
    options = STAGES[args.stage][0](**values)
    if isinstance(options, PublishConfig):
        publish(options)
        return
    config = with_overrides(from_preset(options.preset), options.override)
    if isinstance(options, GanConfig):
        from mmif.train.gan import train_gan

        train_gan(options, config)
        return
    from mmif.train.encoder import train_encoder

    train_encoder(options, config)
