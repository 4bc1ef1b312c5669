# SPDX-License-Identifier: MIT
"""AWS's own signing test suite: every case, in headers and as a URL.

usage: sigv4_suite.py FOLDER
"""
import datetime
import json
import pathlib
import sys

import sigv4_binding as perf


def parse(text):
    """A request as the suite writes it: a value goes on in the next line if that is indented."""
    head, _, body = text.partition("\n\n")
    lines = head.split("\n")
    method, _, target = lines[0].partition(" ")
    target = target.rpartition(" ")[0]
    headers = []
    for line in filter(None, lines[1:]):
        if line[0] in " \t" and headers:
            headers[-1] = (headers[-1][0], headers[-1][1] + "\n" + line)
        else:
            name, _, value = line.partition(":")
            headers.append((name, value))
    path, _, query = target.partition("?")
    return method, path, query, headers, body.encode()


def run(case):
    context = json.loads((case / "context.json").read_text())
    who = context["credentials"]
    keys = perf.Keys(who["access_key_id"], who["secret_access_key"], who.get("token"))
    when = datetime.datetime.fromisoformat(context["timestamp"].replace("Z", "+00:00"))
    method, path, query, headers, body = parse((case / "request.txt").read_text())
    wrong = []
    for form in ("header", "query"):
        flags = 0 if context["normalize"] else perf.RAW_PATH
        if context.get("omit_session_token"):
            flags |= perf.TOKEN_AFTER
        if context["sign_body"]:
            flags |= perf.CONTENT_HASH
        signed = perf.Signed(keys, method, path, query, headers, body, context["region"],
                             context["service"], int(when.timestamp() * 1000), form == "query",
                             context["expiration_in_seconds"], flags)

        def same(what, ours):
            theirs = (case / f"{form}-{what}.txt").read_text()
            if ours != theirs:
                wrong.append(f"{case.name} {form}-{what}\n  expected {theirs!r}\n  found    {ours!r}")

        same("canonical-request", signed.canonical)
        same("string-to-sign", signed.to_sign)
        same("signature", signed.hex)
        theirs = parse((case / f"{form}-signed-request.txt").read_text())
        if form == "header":
            sent = {(k.lower(), v) for k, v in theirs[3]}
            ours = {(k.lower(), v) for k, v in headers + signed.headers}
            if sent != ours:
                wrong.append(f"{case.name} header-signed-request\n  {sent ^ ours}")
        elif sorted(theirs[2].split("&")) != sorted(signed.target.partition("?")[2].split("&")):
            wrong.append(f"{case.name} query-signed-request\n  {theirs[2]}\n  {signed.target}")
    return wrong


cases = sorted(p.parent for p in pathlib.Path(sys.argv[1]).glob("*/context.json"))
failures = [failure for case in cases for failure in run(case)]
print("\n".join(failures))
print(f"{len(cases)} cases in 2 forms with 4 files each, {len(failures)} differences")
sys.exit(1 if failures or len(cases) < 38 else 0)
