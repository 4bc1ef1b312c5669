# SPDX-License-Identifier: MIT
"""How Python values become bytes, and how the arguments of a call become a key."""
import hashlib
import json
import pickle
import struct

MAX_KEY = 32767


class Json:
    """The default. Safe to read whatever is in the store. Tuples come back as lists."""

    @staticmethod
    def dumps(value):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False,
                          allow_nan=True).encode()

    @staticmethod
    def loads(data):
        return json.loads(data)


class Bytes:
    """No conversion: values are bytes."""

    @staticmethod
    def dumps(value):
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError("this cache stores bytes, not %s" % type(value).__name__)
        return bytes(value)

    @staticmethod
    def loads(data):
        return data


class Pickle:
    """Any object. WARNING: reading a pickle runs code that the pickle names. Use it only
    where nobody else can write: memory only, or a durable file that is yours alone."""

    @staticmethod
    def dumps(value):
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    @staticmethod
    def loads(data):
        return pickle.loads(data)


SERIALIZERS = {"json": Json, "bytes": Bytes, "pickle": Pickle}


def serializer(which):
    """A serializer by name, or any object that has dumps and loads (to and from bytes)."""
    if isinstance(which, str):
        try:
            return SERIALIZERS[which]
        except KeyError:
            raise ValueError("serializer %r: use %s, or an object with dumps and loads"
                             % (which, ", ".join(map(repr, SERIALIZERS)))) from None
    if not (hasattr(which, "dumps") and hasattr(which, "loads")):
        raise TypeError("a serializer has dumps and loads")
    return which


def _put(value, out):
    """Appends a tag and the value, lengths first, so that no two values share an encoding."""
    kind = type(value)
    if value is None:
        out.append(b"N")
    elif kind is bool:
        out.append(b"T" if value else b"F")
    elif kind is int:
        text = b"%d" % value
        out.append(b"i%d:%s" % (len(text), text))
    elif kind is float:
        out.append(b"d" + struct.pack("<d", value))
    elif kind is str:
        text = value.encode("utf-8", "surrogatepass")
        out.append(b"s%d:%s" % (len(text), text))
    elif kind in (bytes, bytearray):
        out.append(b"b%d:%s" % (len(value), bytes(value)))
    elif kind in (tuple, list):
        out.append(b"%s%d:" % (b"t" if kind is tuple else b"l", len(value)))
        for item in value:
            _put(item, out)
    elif kind in (set, frozenset):
        _put_sorted(b"S", ((item,) for item in value), len(value), out)
    elif kind is dict:
        _put_sorted(b"m", value.items(), len(value), out)
    else:
        raise TypeError("an argument of type %s cannot be part of a cache key; "
                        "give @cached a key= function" % kind.__qualname__)


def _put_sorted(tag, groups, count, out):
    encoded = []
    for group in groups:
        parts = []
        for item in group:
            _put(item, parts)
        encoded.append(b"".join(parts))
    out.append(b"%s%d:" % (tag, count))
    out.extend(sorted(encoded))


def encode_key(*values):
    """The key of some values: unambiguous, and the same in every process."""
    out = []
    for value in values:
        _put(value, out)
    return shorten(b"".join(out))


def shorten(key):
    """Keys over the library's limit go by their BLAKE2b digest."""
    if len(key) <= MAX_KEY:
        return key
    return b"H" + hashlib.blake2b(key, digest_size=32).digest()
