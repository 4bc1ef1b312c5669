# SPDX-License-Identifier: MIT
"""Random requests, signed by libperf and by AWS's own Python client: canonical request, string to
sign and signature must be the same.

usage: sigv4_differential.py [COUNT [SEED]]
"""
import datetime
import random
import sys
import urllib.parse
from unittest import mock

import botocore.auth
import botocore.awsrequest
import botocore.credentials

import sigv4_binding as perf

TEXTS = ["a", "Z9", "-._~", " ", "  ", "%", "%41", "%2f", "+", "=", "&", "?", "#", "/", ":", "@",
         "!$'()*,;", "[]{}|\\^`\"<>", "é", "日本語", "ሴ", "🙂", "\u00a0", "key", "value", "0"]
SEGMENTS = ["", ".", "..", "...", "a", ".a", "foo", "b%20c", "%2F", "%C3%A9", "x~y", "-_", "A.B"]
SERVICES = ["dynamodb", "sqs", "monitoring", "sts", "bedrock", "s3", "s3-object-lambda", "lambda",
            "a-service-with-a-name-that-is-too-long-for-a-remembered-signing-key"]
REGIONS = ["us-east-1", "eu-central-1", "cn-north-1", "us-gov-west-1", "ap-southeast-7"]
NAMES = ["X-Amz-Target", "Content-Type", "x-amz-meta-a", "X-Amz-Meta-A", "User-Agent", "Expect",
         "Transfer-Encoding", "X-Amzn-Trace-Id", "Range", "a", "ETag", "te", "Zz", "x-amz-acl",
         "Traceparent", "Connection", "content-md5", "If-None-Match", "B_c"]
VALUES = ["", "v", " leading", "trailing  ", "two  spaces", "\ttab\t\ttab", "a, b,c", '"q  q"',
          "line\n  line", "naïve", "日本", "x" * 300, "DynamoDB_20120810.GetItem"]


def text(rng, least=0, most=4):
    return "".join(rng.choice(TEXTS) for _ in range(rng.randint(least, most)))


class Case:
    def __init__(self, rng):
        self.url_form = rng.random() < 0.5
        self.service = rng.choice(SERVICES)
        self.s3 = self.service.startswith("s3")
        self.region = rng.choice(REGIONS)
        self.method = rng.choice(["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH"])
        self.body = rng.choice([b"", b"", b"{}", rng.randbytes(rng.randint(1, 3000))])
        self.token = rng.choice([None, "tok+/=" + "n" * rng.randint(1, 1500)])
        self.expires = rng.randint(1, 604800)
        self.when = datetime.datetime(2000, 1, 1) + datetime.timedelta(
            seconds=rng.randint(0, 90 * 365 * 86400))
        self.host = rng.choice(["example.amazonaws.com", "dynamodb.eu-west-1.amazonaws.com",
                                "localhost:8000", "bucket.s3.amazonaws.com"])
        self.id = rng.choice(["AKIDEXAMPLE", "ASIA/odd+id="])
        self.secret = "s" * rng.choice([1, 40, 60, 61, 100]) + text(rng, 0, 1).encode(
            "ascii", "ignore").decode().strip().replace(" ", "")
        # Any path that a client may send: segments as they are, or arbitrary text encoded once.
        if rng.random() < 0.5:
            self.path = "/" + "/".join(rng.choice(SEGMENTS) for _ in range(rng.randint(0, 6)))
        else:
            self.path = "/" + urllib.parse.quote(text(rng), safe="/~")
        # The client of AWS encodes parameters itself; a URL keeps only the first of equal names.
        params = [(text(rng, 1, 3), text(rng)) for _ in range(rng.choice([0, 0, 1, 2, 5, 20]))]
        if self.url_form:
            params = list(dict(params).items())
        quote = lambda part: urllib.parse.quote(part, safe="-_.~")
        pairs = [quote(k) + "=" + quote(v) for k, v in params]
        if pairs and not self.url_form and rng.random() < 0.3:
            pairs = [p[:-1] if p.endswith("=") and p.count("=") == 1 else p for p in pairs]
        self.query = "&".join(pairs)
        names = [rng.choice(NAMES) for _ in range(rng.choice([0, 1, 3, 8]))]
        self.headers = [("Host", self.host)] + [(n, rng.choice(VALUES)) for n in names]
        rng.shuffle(self.headers)
        self.given_hash = rng.choice([None, None, None, "UNSIGNED-PAYLOAD",
                                      "STREAMING-UNSIGNED-PAYLOAD-TRAILER"])

    def by_botocore(self):
        # http: the payload is signed unless the hash is given in a header.
        request = botocore.awsrequest.AWSRequest(
            method=self.method, data=b"" if self.url_form else self.body,
            url=f"http://{self.host}{self.path}" + (f"?{self.query}" if self.query else ""))
        for name, value in self.headers:
            request.headers.add_header(name, value)
        credentials = botocore.credentials.Credentials(self.id, self.secret, self.token)
        kinds = {(False, False): botocore.auth.SigV4Auth, (True, False): botocore.auth.S3SigV4Auth,
                 (False, True): botocore.auth.SigV4QueryAuth,
                 (True, True): botocore.auth.S3SigV4QueryAuth}
        kind = kinds[self.s3, self.url_form]
        signer = (kind(credentials, self.service, self.region, expires=self.expires)
                  if self.url_form else kind(credentials, self.service, self.region))
        seen = {}

        def to_sign(request, canonical, real=signer.string_to_sign):
            seen["canonical"] = canonical
            seen["to_sign"] = real(request, canonical)
            return seen["to_sign"]

        signer.string_to_sign = to_sign
        if self.given_hash and not self.url_form:
            signer.payload = lambda _: self.given_hash
        with mock.patch("botocore.auth.get_current_datetime", lambda: self.when):
            signer.add_auth(request)
        if self.url_form:
            signature = request.url.rpartition("X-Amz-Signature=")[2]
        else:
            signature = request.headers["Authorization"].rpartition("Signature=")[2]
        seen["authorization"] = request.headers.get("Authorization")
        return seen["canonical"], seen["to_sign"], signature, seen["authorization"]

    def by_libperf(self):
        keys = perf.Keys(self.id, self.secret, self.token)
        when = int(self.when.replace(tzinfo=datetime.timezone.utc).timestamp() * 1000)
        signed = perf.Signed(keys, self.method, self.path, self.query, self.headers,
                             b"" if self.url_form else self.body, self.region, self.service, when,
                             self.url_form, self.expires if self.url_form else 0, 0,
                             None if self.url_form else self.given_hash)
        return signed.canonical, signed.to_sign, signed.hex, dict(signed.headers).get(
            "Authorization")


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(2**32)
    different, forms, s3 = 0, 0, 0
    for i in range(count):
        case = Case(random.Random(f"{seed} {i}"))
        forms += case.url_form
        s3 += case.s3
        theirs, ours = case.by_botocore(), case.by_libperf()
        if theirs != ours:
            different += 1
            if different <= 5:
                print(f"request {i}, seed {seed}: {vars(case)}")
                for a, b in zip(theirs, ours):
                    if a != b:
                        print(f"  botocore {a!r}\n  libperf  {b!r}")
    print(f"{count} requests ({forms} as URLs, {s3} by S3's rules), {different} differences, "
          f"seed {seed}")
    return 1 if different else 0


sys.exit(main())
