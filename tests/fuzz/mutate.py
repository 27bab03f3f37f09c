"""Mutations of valid files: of bytes, and of JSON by its structure. Only the random generator decides."""

import json
import random
from typing import Any

ODD_BYTES = [b"\x00", b"\xff", b"\n", b"\x80\x04", b"PK\x03\x04", b"PK\x05\x06", b"../", b"{", b'"', b"\x1b[2J", b"."]
ODD_SIZES = [0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, 10**11]
ODD_TEXTS = [
    "",
    "..",
    "../x",
    "/etc/passwd",
    "C:\\x",
    "a\0b",
    "a\nb",
    "\x1b[31mred",
    "\u202e",
    "\ud800",
    "é" * 300,
    "9" * 50,
]
ODD_VALUES = [
    *(None, True, False, 0, 1, -1, 3, 10**6 + 1, -(10**9), 10**18, 10**400, 0.5, -0.0, 1e308, 1e-320),
    *(float("nan"), float("inf"), float("-inf"), [], {}, [[]], [1] * 200, ["a"], [None], {"a": 1}, [1.5, "x", None]),
]


def mutate_bytes(data: bytes, random: random.Random) -> bytes:
    """One to eight changes: bits, odd bytes and sizes, pieces moved, doubled or cut off."""
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        place = random.randrange(len(data) + 1)
        kind = random.randrange(8)
        if kind == 0 and data:
            data[place - 1] ^= 1 << random.randrange(8)
        elif kind == 1 and data:
            data[place - 1] = random.randrange(256)
        elif kind == 2:
            data[place:place] = random.choice(ODD_BYTES)
        elif kind == 3:
            data[place : place + random.choice((1, 4, 16))] = b""
        elif kind == 4:
            width = random.choice((1, 2, 4, 8))
            size = random.choice(ODD_SIZES) % 2 ** (8 * width)
            data[place : place + width] = size.to_bytes(width, random.choice(("little", "big")))
        elif kind == 5:
            data = data[:place]
        elif kind == 6:
            start = random.randrange(len(data) + 1)
            data[place:place] = data[start : start + random.choice((4, 64, 1024))]
        else:
            start = random.randrange(len(data) + 1)
            length = random.choice((1, 8, 64))
            data[place : place + length] = data[start : start + length]
    return bytes(data)


def mutate_value(value: Any, random: random.Random) -> Any:
    """A JSON value with one node replaced, doubled, renamed or taken away."""
    if isinstance(value, dict) and value and random.random() < 0.85:
        value = dict(value)
        name = random.choice(list(value))
        kind = random.random()
        if kind < 0.08:
            del value[name]
        elif kind < 0.14:
            value[_text(name, random)] = value.pop(name)
        elif kind < 0.18:
            value[_text(name, random)] = value[name]
        else:
            value[name] = mutate_value(value[name], random)
        return value
    if isinstance(value, list) and value and random.random() < 0.7:
        value = list(value)
        place = random.randrange(len(value))
        kind = random.random()
        if kind < 0.15:
            del value[place]
        elif kind < 0.3:
            value.insert(place, value[random.randrange(len(value))])
        else:
            value[place] = mutate_value(value[place], random)
        return value
    if type(value) in (int, float) and random.random() < 0.4:
        return random.choice(
            (
                -value,
                value + 1,
                value - 1,
                value * 2,
                value * 1000,
                value / 2 if abs(value) < 1e300 else 0.5,
                str(value),
                [value],
            )
        )
    if isinstance(value, str) and random.random() < 0.6:
        return _text(value, random)
    return random.choice([*ODD_VALUES, *ODD_TEXTS])


def mutate_json(content: Any, random: random.Random) -> bytes:
    """The text of a mutated JSON value, sometimes damaged as a text too."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        content = mutate_value(content, random)
    text = json.dumps(content, ensure_ascii=random.random() < 0.9)
    kind = random.random()
    if kind < 0.02:
        depth = random.choice((100, 900, 1000, 10**5))
        text = text.replace(":", ": " + "[" * depth + "]" * depth + ', "x":', 1)
    elif kind < 0.04:
        text = text[:-1] + ", " + text[1:] if len(text) > 2 else text  # every key twice
    elif kind < 0.06:
        text = text.replace("1", "1" * 5000, 1)
    data = text.encode("utf-8", errors="surrogatepass")
    return mutate_bytes(data, random) if random.random() < 0.15 else data


def _text(text: str, random: random.Random) -> str:
    place = random.randrange(len(text) + 1)
    return random.choice(
        (random.choice(ODD_TEXTS), text[:place], text + text, text[:place] + random.choice(ODD_TEXTS) + text[place:])
    )
