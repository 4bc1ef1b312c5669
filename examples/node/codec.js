// SPDX-License-Identifier: MIT
//
// codec.js - how values become bytes, and how the arguments of a call become a key.
//
'use strict';

const { createHash } = require('node:crypto');

const MAX_KEY = 32767;

/** The default: JSON, and no bytes at all for undefined. */
const json = {
    encode: (value) => (value === undefined ? Buffer.alloc(0) : Buffer.from(JSON.stringify(value))),
    decode: (bytes) => (bytes.length === 0 ? undefined : JSON.parse(bytes.toString('utf8'))),
};

/** No conversion: values are Buffers (or any Uint8Array). */
const bytes = {
    encode(value) {
        if (!(value instanceof Uint8Array)) throw new TypeError('this cache stores bytes');
        return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    },
    decode: (data) => data,
};

/** A serializer by name, or any object that has encode and decode (to and from Buffer). */
function serializer(which) {
    if (which === 'json') return json;
    if (which === 'bytes') return bytes;
    if (which && typeof which.encode === 'function' && typeof which.decode === 'function')
        return which;
    throw new TypeError('serializer: "json", "bytes", or an object with encode and decode');
}

/** A tag and the value, lengths first, so that no two values share an encoding. */
function describe(value) {
    switch (typeof value) {
    case 'undefined': return 'u';
    case 'boolean': return value ? 'T' : 'F';
    case 'number': return Object.is(value, -0) ? 'd-0;' : `d${value};`;
    case 'bigint': return `i${value};`;
    case 'string': return `s${value.length}:${value}`;
    case 'object': break;
    default: throw unsupported(typeof value);
    }
    if (value === null) return 'n';
    if (Array.isArray(value)) return `a${value.length}:${Array.from(value, describe).join('')}`;
    if (value instanceof Uint8Array)
        return `b${value.length}:${Buffer.from(value).toString('hex')}`;
    if (value instanceof Date) return `D${value.getTime()};`;
    const prototype = Object.getPrototypeOf(value);
    if (prototype !== Object.prototype && prototype !== null)
        throw unsupported(value.constructor?.name ?? 'object');
    const names = Object.keys(value).sort();
    return `o${names.length}:${names.map((n) => describe(n) + describe(value[n])).join('')}`;
}

function unsupported(type) {
    return new TypeError(`an argument of type ${type} cannot be part of a cache key; ` +
        'give cached() a key function');
}

/** The key of some values: unambiguous, and the same in every process. */
function encodeKey(...values) {
    return toKey(values.map(describe).join(''));
}

/** A key as bytes; keys over the library's limit go by their SHA-256. */
function toKey(key) {
    let data;
    if (typeof key === 'string') data = Buffer.from(key);
    else if (key instanceof Uint8Array) data = Buffer.from(key.buffer, key.byteOffset, key.length);
    else throw new TypeError('a key is a string or bytes');
    if (data.length <= MAX_KEY) return data;
    return Buffer.concat([Buffer.from('H'), createHash('sha256').update(data).digest()]);
}

module.exports = { serializer, encodeKey, toKey };
