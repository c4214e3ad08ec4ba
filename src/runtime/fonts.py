"""Fonts for names in other scripts, such as Chinese, Japanese and Korean findings: those that this machine has."""

import functools
import sys

FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans CJK TC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC",
    "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "NanumGothic", "Malgun Gothic", "IPAexGothic",
    "Microsoft YaHei", "Yu Gothic", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS",
)  # fmt: skip


@functools.cache
def installed() -> tuple[str, ...]:
    """The names of `FAMILIES` that matplotlib finds on this machine."""
    from matplotlib import font_manager

    there = set(font_manager.fontManager.get_font_names())
    return tuple(name for name in FAMILIES if name in there)


def font_file() -> str | None:
    """The file of the first of `installed`; None if none is installed."""
    from matplotlib import font_manager

    return font_manager.findfont(installed()[0]) if installed() else None


@functools.cache
def say_what_is_missing() -> None:
    """Say once on stderr that pictures lack characters for want of a font."""
    print(
        "note: this machine lacks a font for some characters in the names, so pictures show boxes in their place; "
        "install one that has them, such as Noto Sans CJK",
        file=sys.stderr,
    )
