"""What a run left behind, as plain dicts and lists; needs neither PyTorch nor PyYAML."""

import json
import os
import re
from typing import Any

Path = str | os.PathLike[str]


def read_run(directory: Path) -> dict[str, Any]:
    """Settings and curves of a run or an evaluation.

    `directory` is the one that the program named with "results go to". The result has

        config    every setting, resolved: the mapping of config.yml
        metrics   a dict an epoch, the lines of metrics.jsonl; empty where the file is not there
        steps     a dict a step, the lines of steps.jsonl; the same

    A number that was not finite is None, and its line's "non_finite" names it. A last line that is still being written
    is left out.

    Errors: OSError where there is no config.yml; ValueError, with file and line, where a file is damaged.
    """
    directory = os.fspath(directory)
    path = os.path.join(directory, "config.yml")
    with open(path, encoding="utf-8") as file:
        config = _Yaml(path, file.read()).mapping()
    logs = {name: _json_lines(os.path.join(directory, f"{name}.jsonl")) for name in ("metrics", "steps")}
    return {"config": config, **logs}


def _json_lines(path: str) -> list[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.readlines()
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            break
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path} line {number} is no JSON: {error}") from None
    return records


class _Yaml:
    """The YAML that the program writes: blocks of mappings and lists, short lists on one line, words bare or in double
    quotes. Anything else that YAML allows is an error that names the line."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        # (number of the line, its indent, what stands there)
        self.lines: list[tuple[int, int, str]] = []
        for number, line in enumerate(text.split("\n"), 1):
            bare = line.strip(" \r")
            if bare and not bare.startswith("#"):
                self.lines.append((number, len(line) - len(line.lstrip(" ")), bare))
        self.at = 0

    def mapping(self) -> dict[str, Any]:
        """The whole text, which has to be a mapping."""
        value = self.block(0) if self.lines else None
        if not isinstance(value, dict):
            raise ValueError(f"{self.path} holds no settings")
        if self.at < len(self.lines):
            raise self.unreadable()
        return value

    def block(self, least: int) -> Any:
        """The mapping or list that begins at this line, or None where it is indented by less than `least`."""
        if self.at == len(self.lines) or self.lines[self.at][1] < least:
            return None
        indent = self.lines[self.at][1]
        is_list = self.is_item()
        items: list[Any] = []
        fields: dict[str, Any] = {}
        while self.at < len(self.lines) and self.lines[self.at][1] == indent and self.is_item() == is_list:
            if is_list:
                items.append(self.item(indent))
            else:
                key, value = self.field(indent)
                if key in fields:
                    self.at -= 1
                    raise self.unreadable()
                fields[key] = value
        return items if is_list else fields

    def is_item(self) -> bool:
        text = self.lines[self.at][2]
        return text == "-" or text.startswith("- ")

    def item(self, indent: int) -> Any:
        number, _, text = self.lines[self.at]
        rest = text[1:].strip()
        if not rest:
            self.at += 1
            return self.block(indent + 1)
        if _KEY.match(rest):
            # A mapping whose first field stands behind the dash.
            self.lines[self.at] = (number, indent + 2, rest)
            return self.block(indent + 2)
        value = self.value(rest)
        self.at += 1
        return value

    def field(self, indent: int) -> tuple[str, Any]:
        text = self.lines[self.at][2]
        match = _KEY.match(text)
        if match is None:
            raise self.unreadable()
        key, rest = str(self.value(match[1], as_text=True)), text[match.end() :].strip()
        if rest:
            value = self.value(rest)
            self.at += 1
        else:
            self.at += 1
            value = self.block(indent + 1)
        return key, value

    def value(self, text: str, as_text: bool = False) -> Any:
        """What stands on one line."""
        if text == "{}":
            return {}
        if text.startswith("["):
            if not text.endswith("]"):
                raise self.unreadable()
            items = _ITEM.findall(text[1:-1])
            if ", ".join(items) != text[1:-1]:
                raise self.unreadable()
            return [self.value(item) for item in items]
        if text.startswith('"'):
            try:
                # JSON's escapes, and \U with eight digits for what JSON writes as two halves.
                value = json.loads(_LONG_ESCAPE.sub(lambda m: m[1] + json.dumps(chr(int(m[2], 16)))[1:-1], text))
            except (OverflowError, ValueError):
                raise self.unreadable() from None
            return value
        if as_text and _WORD.fullmatch(text):
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _WHOLE.fullmatch(text):
            return int(text)
        if _REAL.fullmatch(text):
            return float(text)
        if not _WORD.fullmatch(text):
            raise self.unreadable()
        return text

    def unreadable(self) -> ValueError:
        number, _, text = self.lines[self.at]
        return ValueError(f"{self.path} line {number} is not as flatnce writes it: {text[:80]}")


_STRING = r'"(?:[^"\\]|\\.)*"'
_KEY = re.compile(rf"({_STRING}|[A-Za-z/_][\w/.-]*):(?= |$)", re.ASCII)
_ITEM = re.compile(rf"{_STRING}|[^,\s\"\[\]]+")
_LONG_ESCAPE = re.compile(r"((?<!\\)(?:\\\\)*)\\U([0-9a-f]{8})")
_WORD = re.compile(r"[A-Za-z/_][\w/.-]*", re.ASCII)
_WHOLE = re.compile(r"-?\d+")
_REAL = re.compile(r"-?\d+\.\d+(?:e[+-]\d+)?")
_WORDS = {"null": None, "true": True, "false": False}
