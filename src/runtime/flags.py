"""A frozen dataclass as a command line: the only user of argparse."""

import argparse
import dataclasses
import functools
import math
import shutil
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")

MAIN = "main options"


def option(default: Any, text: str = "", *, low: float = -math.inf, high: float = math.inf, **metadata: Any) -> Any:
    """Dataclass field that becomes a flag with help `text` and an allowed range `low` to `high` (both included).

    A switch that is on by default becomes `--no-NAME`, and its text says what that does. `hidden=True` keeps a field
    off the command line, `positional=True` makes it a positional argument, `required=True` demands the flag, `hint`
    ends the message of a value out of range, `folder=True` refuses a file, and `group` is the title in --help if not
    the one that `parse` is told.
    """
    return field(default=default, metadata={"help": text, "low": low, "high": high, **metadata})


class _Help(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal, or 120 columns without one."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=26, width=shutil.get_terminal_size((120, 24)).columns)


class _Parser(argparse.ArgumentParser):
    """Errors in one line, exit status 2."""

    def error(self, message: str) -> typing.NoReturn:
        """Print the message and exit."""
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


def parse(
    defaults: Config,
    description: str | None,
    argv: list[str] | None = None,
    *,
    groups: Mapping[str, Sequence[str]],
    metavars: Mapping[str, str],
) -> Config:
    """The dataclass that `argv` (default: the process's arguments) makes of `defaults`.

    groups: titles and the fields under them; all others are main options. metavars: what --help shows for the value of
    a field, where type and name do not tell. A wrong flag prints one line and exits 2; a value out of its range raises
    ValueError.
    """
    hints = typing.get_type_hints(type(defaults))
    shown = _shown(defaults)
    parser = _Parser(
        usage=_usage(shown), description=description, formatter_class=_Help, allow_abbrev=False, add_help=False
    )
    titles = {name: title for title, names in groups.items() for name in names}
    for title in (MAIN, *groups):
        group = parser.add_argument_group(title)
        for f in shown:
            if f.metadata.get("group", titles.get(f.name, MAIN)) == title:
                _add(group, f, hints[f.name], getattr(defaults, f.name), metavars.get(f.name))
                last = group
    last.add_argument("-h", "--help", action="help", help="show this text and exit")
    given = vars(parser.parse_args(argv))
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    for f in shown:
        _check(f, values[f.name])
    return dataclasses.replace(defaults, **values)


def as_flags(config: Any, **changed: Any) -> list[str]:
    """The arguments that make this config, with some fields `changed`, of its class's defaults."""
    config = dataclasses.replace(config, **changed)
    flags: list[str] = []
    for f in _shown(config):
        value, flag = getattr(config, f.name), flag_of(f.name)
        if value == f.default:
            continue
        if isinstance(value, bool):
            flags.append(flag if value else "--no-" + flag[2:])
        else:
            flags += [flag, *map(str, value if isinstance(value, tuple) else (value,))]
    return flags


def _shown(config: Any) -> list[dataclasses.Field]:
    """The fields with a flag; those of a class before those it inherits, since they are what the stage is about."""
    origin = {name: depth for depth, cls in reversed([*enumerate(type(config).__mro__)]) for name in vars(cls)}
    shown = [f for f in fields(config) if not f.metadata.get("hidden")]
    return sorted(shown, key=lambda f: origin[f.name])


def flag_of(name: str) -> str:
    """The flag of a field: `--no-finding` of `no_finding`."""
    return "--" + name.replace("_", "-")


def _usage(shown: Sequence[dataclasses.Field]) -> str:
    """What must be given, and that there are options; they are listed below it."""
    required = [f"{flag_of(f.name)} PATH " for f in shown if f.metadata.get("required")]
    positional = [" PATH [PATH ...]" for f in shown if f.metadata.get("positional")]
    return "".join(["%(prog)s ", *required, "[options]", *positional])


def _add(parser: argparse._ArgumentGroup, f: dataclasses.Field, hint: Any, default: Any, metavar: str | None) -> None:
    text, flag = f.metadata["help"].replace("%", "%%"), flag_of(f.name)
    if f.metadata.get("positional"):
        parser.add_argument(f.name, nargs="+", type=_item_type(hint), help=text, metavar="PATH")
    elif hint == bool | None:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=text)
    elif hint is bool:
        name, action = ("--no-" + flag[2:], "store_false") if default else (flag, "store_true")
        parser.add_argument(name, dest=f.name, action=action, default=default, help=text + " (default: off)")
    else:
        several = isinstance(default, tuple)
        required = f.metadata.get("required", False)
        if not required and "(default:" not in text:
            text += f" (default: {' '.join(map(str, default)) if several else default})".replace("%", "%%")
        parser.add_argument(
            flag,
            nargs="+" if several else None,
            type=_item_type(hint),
            choices=_choices(hint),
            default=default,
            required=required,
            help=text,
            metavar=None if _choices(hint) else f.metadata.get("metavar", metavar or _metavar(f, hint)),
        )


def _metavar(f: dataclasses.Field, hint: Any) -> str:
    """What stands for the value in --help where nothing else was said."""
    if _item_type(hint) is _path:
        return "DIR" if f.metadata.get("folder") else "FILE"
    return "COLUMN" if f.name.endswith("_column") else "N"


def _words(hint: Any) -> tuple[str, ...]:
    """The words of a Literal, also of one within `tuple[..., ...]` or beside another type."""
    literals = [part for part in (hint, *typing.get_args(hint)) if typing.get_origin(part) is Literal]
    return typing.get_args(literals[0]) if literals else ()


def _choices(hint: Any) -> tuple[str, ...] | None:
    """All that a flag may be, where that is one of a Literal's words."""
    return None if float in typing.get_args(hint) else _words(hint) or None


def _item_type(hint: Any) -> Callable[[str], Any]:
    """`int` of `int`, `tuple[int, ...]` and `int | None`; a function for a number or a word (`float | Literal`)."""
    if _choices(hint):
        return str
    if words := _words(hint):
        return functools.partial(_number, words=words)
    inner = [t for t in typing.get_args(hint) if t not in (type(None), Ellipsis)]
    container = typing.get_origin(hint) in (tuple, types.UnionType, typing.Union)
    item = inner[0] if container else hint
    types_of: dict[Any, Callable[[str], Any]] = {Path: _path, float: _number, int: functools.partial(_number, kind=int)}
    return types_of.get(item, item)


def _number(text: str, *, kind: type = float, words: Sequence[str] = ()) -> float | str:
    """A number, or one of the words."""
    if text in words:
        return text
    try:
        return kind(text)
    except ValueError:
        number = "number with a decimal point" if kind is float else "whole number in digits"
        expected = " or ".join([f"a {number}", *map(repr, words)])
        expected += "; separate several by blanks" if "," in text else ""
        raise argparse.ArgumentTypeError(f"it is {text!r}; expected {expected}") from None


def _path(text: str) -> Path:
    """A path; an empty one, which an unset shell variable leaves, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; expected a path")
    return Path(text)


def _check(f: dataclasses.Field, value: Any) -> None:
    """ValueError for a number out of the field's range, and for a file where it takes a folder."""
    if f.metadata.get("folder") and value is not None and value.exists() and not value.is_dir():
        raise ValueError(f"{flag_of(f.name)} is {value}, which is a file; expected a folder")
    low, high = f.metadata["low"], f.metadata["high"]
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, int | float) and not low <= item <= high:
            allowed = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
            raise ValueError(f"{flag_of(f.name)} is {item}; expected a number {allowed}{f.metadata.get('hint', '')}")
