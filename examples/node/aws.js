// SPDX-License-Identifier: MIT
//
// libperf's AWS client for Node.js: any operation of any service, as a promise.
//
//     const { Client } = require('libperf-cache/aws.js');
//     const dynamodb = new Client('dynamodb');
//     const { Item } = await dynamodb.call('GetItem',
//         { TableName: 'things', Key: { id: { S: 'a' } } }, { timeout: 1000 });
//     const reply = await s3.request('GetObject', { path: '/bucket/key' });
//     dynamodb.close();
//
// Region, keys and endpoint come from AWS's own variables and files. JSON services take and
// give objects; a query service (sts, cloudwatch) takes an object of its flat parameters, and
// gives the XML as a Buffer. One client should serve the whole process: it keeps connections.
//
// However many calls are under way, one thread of libuv's pool waits for all of them, on the
// descriptor of perf_aws_fd; what is over is fetched on the JavaScript thread, where its error
// can be asked for. Nothing of libperf calls back into JavaScript. Times are milliseconds.
//
'use strict';

const native = require('./native.js');
const { CacheError } = require('./index.js');

const { koffi, constant, lib } = native;
const OK = constant('PERF_OK');
const JSON_PROTOCOL = constant('PERF_AWS_PROTOCOL_JSON');
const QUERY_PROTOCOL = constant('PERF_AWS_PROTOCOL_QUERY');
const QUERY_SERVICES = new Set(['monitoring', 'cloudwatch', 'sts', 'sns', 'iam',
    'cloudformation', 'ec2']);

koffi.opaque('perf_aws');
koffi.opaque('perf_aws_operation');
koffi.opaque('perf_aws_reply');
const texts = (...names) => Object.fromEntries(names.map((name) => [name, 'const char *']));
const pointers = (...names) => Object.fromEntries(names.map((name) => [name, 'void *']));
const numbers = (...names) => Object.fromEntries(names.map((name) => [name, 'int64_t']));
const Options = koffi.struct('perf_aws_options', {
    struct_size: 'size_t', ...texts('service', 'region', 'profile', 'endpoint_url'),
    ...pointers('credentials', 'http', 'retry', 'breaker'),
    ...numbers('no_breaker', 'retry_mode', 'max_attempts', 'timeout_ms', 'attempt_timeout_ms',
        'protocol'), ...texts('target', 'api_version', 'signing_name'), host: 'void *',
});
koffi.struct('perf_http_header', texts('name', 'value'));
const Request = koffi.struct('perf_aws_request', {
    struct_size: 'size_t', ...texts('operation', 'method', 'path', 'query', 'host_prefix'),
    headers: 'perf_http_header *', header_count: 'size_t', body: 'void *', body_len: 'size_t',
    ...pointers('read', 'read_ctx'), read_len: 'int64_t', rewind: 'void *',
    payload_hash: 'const char *', ...pointers('write', 'write_ctx'),
    ...numbers('max_body_bytes', 'timeout_ms', 'attempt_timeout_ms', 'flags'),
    ...pointers('done', 'done_ctx'),
});
koffi.struct('pollfd', { fd: 'int', events: 'short', revents: 'short' });

const calls = {
    open: lib.func('int perf_aws_open(const perf_aws_options *o, _Out_ perf_aws **out)'),
    close: lib.func('int perf_aws_close(perf_aws *aws)'),
    region: lib.func('const char *perf_aws_region(perf_aws *aws)'),
    endpoint: lib.func('const char *perf_aws_endpoint(perf_aws *aws)'),
    start: lib.func('int perf_aws_start(perf_aws *aws, const perf_aws_request *request, ' +
        '_Out_ perf_aws_operation **out)'),
    wait: lib.func('int perf_aws_operation_wait(perf_aws_operation *operation, ' +
        'int64_t timeout_ms, _Out_ perf_aws_reply **out)'),
    cancel: lib.func('void perf_aws_operation_cancel(perf_aws_operation *operation)'),
    release: lib.func('void perf_aws_operation_release(perf_aws_operation *operation)'),
    fd: lib.func('int perf_aws_fd(perf_aws *aws, _Out_ int *out)'),
    nextDone: lib.func('int perf_aws_next_done(perf_aws *aws, _Out_ perf_aws_operation **out)'),
    status: lib.func('int64_t perf_aws_reply_status(perf_aws_reply *reply)'),
    header: lib.func('const char *perf_aws_reply_header(perf_aws_reply *reply, ' +
        'const char *name)'),
    body: lib.func('void *perf_aws_reply_body(perf_aws_reply *reply)'),
    size: lib.func('size_t perf_aws_reply_size(perf_aws_reply *reply)'),
    requestId: lib.func('const char *perf_aws_reply_request_id(perf_aws_reply *reply)'),
    attempts: lib.func('int64_t perf_aws_reply_attempts(perf_aws_reply *reply)'),
    releaseReply: lib.func('void perf_aws_reply_release(perf_aws_reply *reply)'),
    errorCode: lib.func('const char *perf_aws_error_code()'),
    errorStatus: lib.func('int64_t perf_aws_error_status()'),
    errorRequestId: lib.func('const char *perf_aws_error_request_id()'),
    poll: koffi.load(null).func('int poll(_Inout_ pollfd *fds, unsigned long count, int timeout)'),
};

/** A call failed. code is the PERF_E constant's name, awsCode AWS's own, httpStatus and requestId
 *  what the service said; '' and 0 without an answer. */
class AwsError extends CacheError {
    constructor(status, asked) {
        super(status, native.calls.lastError());
        this.name = 'AwsError';
        this.awsCode = asked ? calls.errorCode() : '';
        this.httpStatus = asked ? Number(calls.errorStatus()) : 0;
        this.requestId = asked ? calls.errorRequestId() : '';
    }
}

/** What a service answered. headers has those that request() was told to keep. */
class Reply {
    constructor(handle, names) {
        this.status = Number(calls.status(handle));
        this.requestId = calls.requestId(handle);
        this.attempts = Number(calls.attempts(handle));
        const size = Number(calls.size(handle));
        this.body = size
            ? Buffer.from(koffi.decode(calls.body(handle), koffi.array('uint8_t', size)))
            : Buffer.alloc(0);
        this.headers = Object.fromEntries(names.map((name) => [name, calls.header(handle, name)]));
    }

    json() {
        return this.body.length ? JSON.parse(this.body.toString()) : null;
    }
}

class Client {
    #handle = null;
    #isQuery;
    #fd;
    #pending = new Map(); // address of an operation: what waits for it
    #waiting = false;

    /** options: region, profile, endpointUrl, target, apiVersion, signingName, maxAttempts,
     *  timeout, attemptTimeout; as in perf_aws_options. */
    constructor(service, { region = null, profile = null, endpointUrl = null, target = null,
        apiVersion = null, signingName = null, maxAttempts = 0, timeout = 0,
        attemptTimeout = 0 } = {}) {
        const protocol = target ? JSON_PROTOCOL : apiVersion ? QUERY_PROTOCOL : 0;
        const out = [null];
        const fd = [0];
        this.#isQuery = protocol === QUERY_PROTOCOL ||
            (protocol === 0 && QUERY_SERVICES.has(service));
        const status = calls.open({
            struct_size: koffi.sizeof(Options), service, region, profile,
            endpoint_url: endpointUrl, credentials: null, http: null, retry: null, breaker: null,
            no_breaker: 0, retry_mode: 0, max_attempts: maxAttempts, timeout_ms: timeout,
            attempt_timeout_ms: attemptTimeout, protocol, target, api_version: apiVersion,
            signing_name: signingName, host: null,
        }, out);
        if (status !== OK) throw new AwsError(status, false);
        this.#handle = out[0];
        const failed = calls.fd(this.#handle, fd);
        if (failed !== OK) {
            const error = new AwsError(failed, false);
            calls.close(this.#handle);
            throw error;
        }
        this.#fd = fd[0];
    }

    #open() {
        if (this.#handle === null) throw new Error('this client is closed');
        return this.#handle;
    }

    get region() { return calls.region(this.#open()); }
    get endpoint() { return calls.endpoint(this.#open()); }

    /** Calls an operation of a JSON or query service. signal: an AbortSignal. */
    async call(operation, parameters = {}, { timeout = 0, signal } = {}) {
        const body = this.#isQuery
            ? new URLSearchParams(parameters).toString() : JSON.stringify(parameters);
        const reply = await this.request(operation, { body, timeout, signal });
        return this.#isQuery ? reply.body : reply.json();
    }

    /** Sends a request in full; path and query are percent-encoded. keep: names of headers of the
     *  reply that are wanted. */
    request(operation, { method = null, path = null, query = null, headers = {}, body = '',
        timeout = 0, signal, keep = [] } = {}) {
        const pairs = Object.entries(headers).map(([name, value]) => ({ name, value: `${value}` }));
        const bytes = Buffer.from(body); // kept below until the call is over
        const out = [null];
        return new Promise((resolve, reject) => {
            signal?.throwIfAborted();
            const status = calls.start(this.#open(), {
                struct_size: koffi.sizeof(Request), operation, method, path, query,
                host_prefix: null, headers: pairs.length ? pairs : null,
                header_count: pairs.length, body: bytes.length ? bytes : null,
                body_len: bytes.length, read: null, read_ctx: null, read_len: 0, rewind: null,
                payload_hash: null, write: null, write_ctx: null, max_body_bytes: 0,
                timeout_ms: timeout, attempt_timeout_ms: 0, flags: 0, done: null, done_ctx: null,
            }, out);
            if (status !== OK) throw new AwsError(status, false);
            const handle = out[0];
            const abort = () => calls.cancel(handle);
            signal?.addEventListener('abort', abort, { once: true });
            this.#pending.set(koffi.address(out[0]), {
                handle, resolve, reject, keep, bytes,
                end: () => signal?.removeEventListener('abort', abort),
            });
            this.#watch();
        });
    }

    /** One thread waits while anything is under way. */
    #watch() {
        if (this.#waiting || !this.#pending.size) return;
        this.#waiting = true;
        calls.poll.async([{ fd: this.#fd, events: 1, revents: 0 }], 1, -1, () => {
            this.#waiting = false;
            this.#fetch();
            this.#watch();
        });
    }

    #fetch() {
        const out = [null];
        while (calls.nextDone(this.#handle, out) === OK) {
            const operation = out[0];
            const key = koffi.address(operation);
            const { resolve, reject, keep, end } = this.#pending.get(key);
            const reply = [null];
            this.#pending.delete(key);
            end();
            const status = calls.wait(operation, 0, reply);
            if (status === OK) {
                resolve(new Reply(reply[0], keep));
                calls.releaseReply(reply[0]);
            } else {
                reject(new AwsError(status, true));
            }
            calls.release(operation);
        }
    }

    /** Cancels what is under way, waits for its end, and closes. */
    async close() {
        if (this.#handle === null) return;
        const left = [...this.#pending.values()];
        const handle = this.#handle;
        await Promise.allSettled(left.map((call) => new Promise((resolve) => {
            const { resolve: yes, reject: no } = call;
            call.resolve = (value) => { yes(value); resolve(); };
            call.reject = (error) => { no(error); resolve(); };
            calls.cancel(call.handle);
        })));
        if (this.#handle === null) return; // closed by another call meanwhile
        this.#handle = null;
        const status = calls.close(handle);
        if (status !== OK) throw new AwsError(status, false);
    }
}

module.exports = { Client, AwsError, Reply };
