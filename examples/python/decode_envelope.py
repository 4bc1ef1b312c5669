# SPDX-License-Identifier: MIT
"""Reads a record of a libperf cache without libperf, as libperf-envelope(7) describes it.

    table = boto3.resource("dynamodb").Table("lms-performance-cache")     # libperf-dynamodb(7)
    item = table.get_item(Key={"pk": "courses|ann|42", "sk": "0"})["Item"]
    print(decode(item["record"].value)["value"])    # if there is "packed", unpack by zstd before

As a program it reads one record from its input: python3 decode_envelope.py < record
"""
import struct
import sys

HEADER = struct.Struct("<4sBBHqqqQIBBHII")  # 56 bytes
FIELDS = ("magic", "version", "kind", "flags", "stamp_ms", "fresh_until_ms", "dead_at_ms",
          "reserved", "load_ms")


def decode(record):
    """A dict of namespace, user, key, tags and value (bytes) and times (ms since 1970; 0: never).
    ValueError: damaged, or none of libperf's."""
    if len(record) < HEADER.size + 8:
        raise ValueError("too short for a record")
    *fixed, ns, user, key, tags, value = HEADER.unpack_from(record)
    out = dict(zip(FIELDS, fixed))
    if out.pop("magic") != b"\xb5LPV" or out.pop("version") != 1:
        raise ValueError("not a record of version 1")
    if out["kind"] > 1 or out.pop("flags") or out.pop("reserved") or not ns or not key:
        raise ValueError("a record of a later libperf")
    if HEADER.size + ns + user + key + tags + value + 8 != len(record):
        raise ValueError("the lengths do not add up")
    if checksum(record[:-8]) != int.from_bytes(record[-8:], "little"):
        raise ValueError("the checksum is wrong")
    at = HEADER.size
    for name, size in (("namespace", ns), ("user", user), ("key", key), ("tags", tags),
                       ("value", value)):
        out[name], at = bytes(record[at:at + size]), at + size
    packed, out["tags"] = out["tags"], []
    while packed:
        out["tags"].append(packed[1:1 + packed[0]])
        packed = packed[1 + packed[0]:]
    return out


def checksum(data):
    """The first eight bytes of SipHash-1-3 with 128 bits of output, under a public key."""
    mask = (1 << 64) - 1
    k0, k1 = struct.unpack("<QQ", b"libperf envelope")
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE,
         k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def mix(a, b, bits):
        v[a] = (v[a] + v[b]) & mask
        v[b] = (v[b] << bits | v[b] >> (64 - bits)) & mask ^ v[a]

    def turn(a):
        v[a] = (v[a] << 32 | v[a] >> 32) & mask

    def sip_round():
        mix(0, 1, 13), mix(2, 3, 16), turn(0), mix(2, 1, 17), mix(0, 3, 21), turn(2)

    whole = len(data) & ~7
    last = data[whole:].ljust(7, b"\0") + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<Q", data[:whole] + last):
        v[3] ^= word
        sip_round()
        v[0] ^= word
    v[2] ^= 0xEE
    for _ in range(3):
        sip_round()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


if __name__ == "__main__":
    for field, content in decode(sys.stdin.buffer.read()).items():
        print("%-15s %r" % (field, content))
