"""``mmif-train gan``, ``encoder`` and ``publish``: options from dataclasses, a YAML file and the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from mmif.commands import cli
from mmif.config import from_preset, with_overrides
from mmif.train.config import EncoderTrainConfig, GanConfig
from mmif.train.publish import PublishConfig, publish


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``mmif-train``."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the help of an option stands below its field

    class Parser(ArgumentParser):
        """Says what is wrong as all commands do; its own way takes several lines and leaves out the command."""

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            print(f"mmif-train: error: {' '.join(message.split())}", file=sys.stderr)
            raise SystemExit(2)

    parser = Parser(prog="mmif-train", description="The two stages of training; publish writes weights to ship.")
    stages = parser.add_subcommands(dest="stage", required=True)
    for name, options, text in (
        ("gan", GanConfig, "pre-train the StyleGAN2 generator"),
        ("encoder", EncoderTrainConfig, "train the encoder, the pre-modulation and the RGB branch"),
        ("publish", PublishConfig, "write a run's averaged weights as a checkpoint to ship"),
    ):
        stage = Parser(description=text)
        stage.add_argument("--config", action="config", help="YAML file with any of these options")
        if options is PublishConfig:
            stage.add_class_arguments(options)
        else:
            stage.add_class_arguments(options, skip={"override"})
            stage.add_argument(
                "--override", nargs="*", default=[], help="changes to the preset, such as encoder.levels=4"
            )
        stages.add_subcommand(name, stage, help=text)
    cli.run(_train, parser, argv)


def _train(args: Any) -> None:
    values = {k: v for k, v in vars(args[args.stage]).items() if k != "config"}
    if args.stage == "publish":
        publish(PublishConfig(**values))
        return
    values["override"] = tuple(values["override"])
    if args.stage == "gan":
        from mmif.train.gan import train_gan

        options = GanConfig(**values)
        train_gan(options, with_overrides(from_preset(options.preset), options.override))
        return
    from mmif.train.encoder import train_encoder

    options = EncoderTrainConfig(**{**values, "betas": tuple(values["betas"])})
    train_encoder(options, with_overrides(from_preset(options.preset), options.override))


if __name__ == "__main__":
    main()
