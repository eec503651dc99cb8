"""Options whose names, types, defaults and help are the fields of a dataclass, in the dialect of all commands."""

from __future__ import annotations

from typing import Any, NoReturn

from jsonargparse import ArgumentParser, set_parsing_settings

from mmif.commands.cli import escaped

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the help of an option stands below its field


class OptionsParser(ArgumentParser):
    """A parser for ``add_class_arguments(DATACLASS, as_group=False)``, spelled as in every other command.

    The field ``change_options`` is ``--change-options``; a bool is a flag (``--change-options false`` takes it back).
    A YAML file (``add_argument("--config", action="config")``) may spell them either way.
    """

    def __init__(self, *args: Any, print_config: str | None = "--print-config", **kwargs: Any) -> None:
        super().__init__(*args, print_config=print_config, **kwargs)

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Spell options with hyphens, and let a bool stand alone."""
        names = [name.replace("_", "-") if name.startswith("--") else name for name in args]
        if kwargs.get("type") is bool:
            kwargs |= {"nargs": "?", "const": True}
        return super().add_argument(*names, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """One line; jsonargparse's own way takes several and leaves out the command."""
        command = self.prog.replace(" [options]", "")
        self.exit(2, f"{command}: error: {escaped(' '.join(message.split()))}; see {command} --help\n")
