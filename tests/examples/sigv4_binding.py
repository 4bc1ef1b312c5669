# SPDX-License-Identifier: MIT
"""The signer of libperf for the tests, through ctypes alone: a second user of its FFI."""
import ctypes as c
import os


class Header(c.Structure):
    _fields_ = [("name", c.c_char_p), ("value", c.c_char_p)]


class Bytes(c.Structure):
    _fields_ = [("data", c.c_void_p), ("len", c.c_size_t)]


class Request(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("method", c.c_char_p), ("path", c.c_char_p),
                ("query", c.c_char_p), ("headers", c.POINTER(Header)),
                ("header_count", c.c_size_t), ("payload", Bytes), ("payload_hash", c.c_char_p),
                ("region", c.c_char_p), ("service", c.c_char_p), ("time_ms", c.c_int64),
                ("form", c.c_int64), ("expires_s", c.c_int64), ("flags", c.c_uint64),
                ("host", c.c_void_p)]


lib = c.CDLL(os.environ["PERF_LIBRARY"])
lib.perf_last_error.restype = c.c_char_p
for name in ("target", "hex", "canonical_request", "string_to_sign"):
    function = getattr(lib, "perf_aws_signature_" + name)
    function.restype, function.argtypes = c.c_char_p, [c.c_void_p]
lib.perf_aws_signature_header_at.argtypes = [c.c_void_p, c.c_size_t, c.POINTER(c.c_char_p),
                                             c.POINTER(c.c_char_p)]
lib.perf_aws_signature_release.argtypes = [c.c_void_p]
lib.perf_aws_keys_release.argtypes = [c.c_void_p]
lib.perf_aws_keys_new.argtypes = [c.c_char_p, c.c_char_p, c.c_char_p, c.c_int64, c.c_void_p,
                                  c.POINTER(c.c_void_p)]
lib.perf_aws_sign.argtypes = [c.c_void_p, c.POINTER(Request), c.POINTER(c.c_void_p)]

RAW_PATH, ENCODE_ONCE, CONTENT_HASH, TOKEN_AFTER, S3 = 1, 2, 4, 8, 7


def check(status):
    if status:
        raise RuntimeError(f"{status}: {lib.perf_last_error().decode()}")


class Keys:
    def __init__(self, access_key_id, secret, token=None):
        self.handle = c.c_void_p()
        check(lib.perf_aws_keys_new(access_key_id.encode(), secret.encode(),
                                    token.encode() if token else None, 0, None,
                                    c.byref(self.handle)))

    def __del__(self):
        lib.perf_aws_keys_release(self.handle)


class Signed:
    """What signing gave, copied out."""

    def __init__(self, keys, method, path, query, headers, body, region, service, time_ms, url,
                 expires_s=0, flags=0, payload_hash=None):
        encoded = [(k.encode(), v.encode()) for k, v in headers]
        array = (Header * max(len(encoded), 1))(*[Header(k, v) for k, v in encoded])
        request = Request(c.sizeof(Request), method.encode(), path.encode(), query.encode(), array,
                          len(encoded))
        held = c.create_string_buffer(body, len(body)) if body else None
        request.payload = Bytes(c.cast(held, c.c_void_p) if body else None, len(body))
        request.payload_hash = payload_hash.encode() if payload_hash else None
        request.region, request.service = region.encode(), service.encode()
        request.time_ms, request.form = time_ms, 1 if url else 0
        request.expires_s, request.flags = expires_s, flags
        out = c.c_void_p()
        check(lib.perf_aws_sign(keys.handle, c.byref(request), c.byref(out)))
        try:
            self.target = lib.perf_aws_signature_target(out).decode()
            self.hex = lib.perf_aws_signature_hex(out).decode()
            self.canonical = lib.perf_aws_signature_canonical_request(out).decode()
            self.to_sign = lib.perf_aws_signature_string_to_sign(out).decode()
            self.headers = []
            name, value = c.c_char_p(), c.c_char_p()
            while lib.perf_aws_signature_header_at(out, len(self.headers), c.byref(name),
                                                   c.byref(value)) == 0:
                self.headers.append((name.value.decode(), value.value.decode()))
        finally:
            lib.perf_aws_signature_release(out)
