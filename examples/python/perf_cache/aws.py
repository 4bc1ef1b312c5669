# SPDX-License-Identifier: MIT
"""libperf's AWS client for Python: any operation of any service.

    from perf_cache.aws import Client

    with Client("dynamodb") as dynamodb:
        item = dynamodb.call("GetItem", {"TableName": "things", "Key": {"id": {"S": "a"}}})

    for page in dynamodb.pages("Scan", {"TableName": "things"}):
        ...

    with Client("s3") as s3:
        reply = s3.request("GetObject", path="/bucket/key")
        reply.status, reply.header("content-type"), reply.body

Region, keys and endpoint come from AWS's own variables and files. JSON services
take and give what json.loads gives; a query service (sts, cloudwatch) takes a
dict of its flat parameters, and gives the XML's bytes.

Threads: everything may be called from any thread, and one client should serve
all of them: a call releases the GIL while it waits. Times are seconds.
fork: a child opens its own Client.
"""
import ctypes
import json
import urllib.parse
from ctypes import c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p

from . import CacheError, _native
from ._native import Sized, constant, lib

__all__ = ["Client", "AwsError", "Reply"]

_JSON, _QUERY = constant("PERF_AWS_PROTOCOL_JSON"), constant("PERF_AWS_PROTOCOL_QUERY")
_QUERY_SERVICES = {"monitoring", "cloudwatch", "sts", "sns", "iam", "cloudformation", "ec2"}


class _Options(Sized):
    _fields_ = [("struct_size", c_size_t)] + [(name, c_char_p) for name in (
        "service", "region", "profile", "endpoint_url")] + [(name, c_void_p) for name in (
            "credentials", "http", "retry", "breaker")] + [(name, c_int64) for name in (
                "no_breaker", "retry_mode", "max_attempts", "timeout_ms", "attempt_timeout_ms",
                "protocol")] + [(name, c_char_p) for name in (
                    "target", "api_version", "signing_name")] + [("host", c_void_p)]


class _Header(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("value", c_char_p)]


class _Request(Sized):
    _fields_ = [("struct_size", c_size_t)] + [(name, c_char_p) for name in (
        "operation", "method", "path", "query", "host_prefix")] + [
            ("headers", ctypes.POINTER(_Header)), ("header_count", c_size_t),
            ("body", c_char_p), ("body_len", c_size_t), ("read", c_void_p),
            ("read_ctx", c_void_p), ("read_len", c_int64), ("rewind", c_void_p),
            ("payload_hash", c_char_p), ("write", c_void_p), ("write_ctx", c_void_p),
            ("max_body_bytes", c_uint64), ("timeout_ms", c_int64),
            ("attempt_timeout_ms", c_int64), ("flags", c_uint64), ("done", c_void_p),
            ("done_ctx", c_void_p)]


def _declare(name, result, *arguments):
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments


_OUT = ctypes.POINTER(c_void_p)
_declare("perf_aws_open", c_int, ctypes.POINTER(_Options), _OUT)
_declare("perf_aws_close", c_int, c_void_p)
_declare("perf_aws_region", c_char_p, c_void_p)
_declare("perf_aws_endpoint", c_char_p, c_void_p)
_declare("perf_aws_perform", c_int, c_void_p, ctypes.POINTER(_Request), _OUT)
_declare("perf_aws_pages_open", c_int, c_void_p, c_char_p, c_char_p, c_size_t, c_char_p, c_char_p,
         _OUT)
_declare("perf_aws_pages_next", c_int, c_void_p, c_int64, _OUT)
_declare("perf_aws_pages_close", None, c_void_p)
_declare("perf_aws_reply_status", c_int64, c_void_p)
_declare("perf_aws_reply_header", c_char_p, c_void_p, c_char_p)
_declare("perf_aws_reply_body", c_void_p, c_void_p)
_declare("perf_aws_reply_size", c_size_t, c_void_p)
_declare("perf_aws_reply_request_id", c_char_p, c_void_p)
_declare("perf_aws_reply_attempts", c_int64, c_void_p)
_declare("perf_aws_reply_release", None, c_void_p)
_declare("perf_aws_error_code", c_char_p)
_declare("perf_aws_error_status", c_int64)
_declare("perf_aws_error_request_id", c_char_p)


class AwsError(CacheError):
    """A call failed. code is the PERF_E constant, aws_code AWS's own, such as
    "ResourceNotFoundException", status the HTTP status and request_id AWS's name for the request;
    without an answer these are "", 0 and ""."""

    def __init__(self, code, detail, asked):
        super().__init__(code, detail)
        self.aws_code = lib.perf_aws_error_code().decode() if asked else ""
        self.status = lib.perf_aws_error_status() if asked else 0
        self.request_id = lib.perf_aws_error_request_id().decode() if asked else ""


def _check(code, asked=True):
    """asked: it was a call that asks a service."""
    if code != _native.OK:
        raise AwsError(code, lib.perf_last_error().decode("utf-8", "replace"), asked)


def _text(value):
    return None if value is None else str(value).encode()


def _ms(seconds):
    if seconds is None:
        return 0
    if seconds < 0:
        raise ValueError("a timeout is a number of seconds of 0 or more, or None")
    return max(1, round(seconds * 1000))


class Reply:
    """What a service answered: status, body, header(name), request_id, attempts."""
    __slots__ = ("_handle", "status", "body", "request_id", "attempts")

    def __init__(self, handle):
        self._handle = handle
        self.status = lib.perf_aws_reply_status(handle)
        self.body = ctypes.string_at(lib.perf_aws_reply_body(handle),
                                     lib.perf_aws_reply_size(handle))
        self.request_id = lib.perf_aws_reply_request_id(handle).decode()
        self.attempts = lib.perf_aws_reply_attempts(handle)

    def header(self, name):
        """The value of a header, or None."""
        value = lib.perf_aws_reply_header(self._handle, _text(name))
        return None if value is None else value.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body) if self.body else None

    def __del__(self):
        if lib is not None:  # the interpreter may be ending
            lib.perf_aws_reply_release(self._handle)


class Client:
    """A client of one service, such as "dynamodb", "sqs", "s3", "sts", "cloudwatch".

    region, profile, endpoint_url, target, api_version, signing_name; timeout and
    attempt_timeout in seconds; max_attempts: as in perf_aws_options.
    """

    def __init__(self, service, *, timeout=None, attempt_timeout=None, max_attempts=0, **options):
        self._handle = None
        texts = ("region", "profile", "endpoint_url", "target", "api_version", "signing_name")
        unknown = set(options) - set(texts)
        if unknown:
            raise TypeError("unknown option: " + ", ".join(sorted(unknown)))
        raw = _Options(service=_text(service), timeout_ms=_ms(timeout),
                       attempt_timeout_ms=_ms(attempt_timeout), max_attempts=max_attempts,
                       **{name: _text(value) for name, value in options.items()})
        if options.get("target"):
            raw.protocol = _JSON
        elif options.get("api_version"):
            raw.protocol = _QUERY
        self._is_query = raw.protocol == _QUERY or (
            raw.protocol == 0 and service in _QUERY_SERVICES)
        handle = c_void_p()
        _check(lib.perf_aws_open(ctypes.byref(raw), ctypes.byref(handle)), asked=False)
        self._handle = handle.value

    def _open(self):
        if self._handle is None:
            raise ValueError("this client is closed")
        return self._handle

    @property
    def region(self):
        return lib.perf_aws_region(self._open()).decode()

    @property
    def endpoint(self):
        return lib.perf_aws_endpoint(self._open()).decode()

    def call(self, operation, parameters=None, *, timeout=None):
        """Calls an operation of a JSON or query service and waits."""
        if self._is_query:
            body = urllib.parse.urlencode(parameters or {}).encode()
            return self.request(operation, body=body, timeout=timeout).body
        body = json.dumps(parameters or {}, separators=(",", ":")).encode()
        return self.request(operation, body=body, timeout=timeout).json()

    def request(self, operation, *, method=None, path=None, query=None, headers=(), body=b"",
                timeout=None):
        """Sends a request in full; path and query are percent-encoded. Returns a Reply."""
        pairs = list(headers.items() if hasattr(headers, "items") else headers)
        array = (_Header * len(pairs))(*[(_text(name), _text(value)) for name, value in pairs])
        raw = _Request(operation=_text(operation), method=_text(method), path=_text(path),
                       query=_text(query), headers=array, header_count=len(pairs),
                       body=bytes(body), body_len=len(body), timeout_ms=_ms(timeout))
        reply = c_void_p()
        _check(lib.perf_aws_perform(self._open(), ctypes.byref(raw), ctypes.byref(reply)))
        return Reply(reply.value)

    def pages(self, operation, parameters=None, *, token_in=None, token_out=None, timeout=None):
        """Walks through all pages of a list of a JSON service."""
        body = json.dumps(parameters or {}).encode()
        handle = c_void_p()
        _check(lib.perf_aws_pages_open(self._open(), _text(operation), body, len(body),
                                       _text(token_in), _text(token_out), ctypes.byref(handle)),
               asked=False)
        try:
            while True:
                self._open()
                reply = c_void_p()
                code = lib.perf_aws_pages_next(handle, _ms(timeout), ctypes.byref(reply))
                if code == _native.MISS:
                    return
                _check(code)
                yield Reply(reply.value).json()
        finally:
            if self._handle is not None:
                lib.perf_aws_pages_close(handle)

    def close(self):
        """Ends calls under way. May be called twice."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _check(lib.perf_aws_close(handle), asked=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
