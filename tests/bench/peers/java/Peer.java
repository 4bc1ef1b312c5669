// SPDX-License-Identifier: MIT
/*
 * The peer Caffeine: the same protocol, keys, values and loops as subject.h. Keys are an object
 * of two longs made for each call (escape analysis may remove it), values byte[64] arrays that
 * are copied out. The JVM is warmed up by whole runs for some seconds before "ready".
 */
import com.github.benmanes.caffeine.cache.Cache;
import com.github.benmanes.caffeine.cache.Caffeine;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.util.Locale;
import java.util.concurrent.CyclicBarrier;

public final class Peer {
    private static final int BATCH = 64;
    private static final int SET_BIT = 0x80000000;
    private static final long WARM_UP_NS = 5_000_000_000L;
    private static final VarHandle LONG =
            MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

    private static final class Key {
        final long first;
        final long second;

        Key(int i) {
            first = splitmix64(Integer.toUnsignedLong(i));
            second = splitmix64(Integer.toUnsignedLong(i) + 0x100000000L);
        }

        @Override public int hashCode() {
            return Long.hashCode(first);
        }

        @Override public boolean equals(Object other) {
            return other instanceof Key key && key.first == first && key.second == second;
        }
    }

    private static final class Count {
        long gets;
        long hits;
        long wrong;
        long checksum;
        long begin;
        long end;

        void add(Key key, boolean found, byte[] out) {
            gets++;
            if (found) {
                long first = (long) LONG.get(out, 0);
                long last = (long) LONG.get(out, 56);
                hits++;
                if (first != key.first || last != key.second + 7) {
                    wrong++;
                }
                checksum += first + last;
            }
        }
    }

    private final String kind;
    private final int[] stream;
    private final int keys;
    private final int ops;
    private final Cache<Key, byte[]> cache;

    private Peer(String[] args) throws Exception {
        kind = args[1];
        stream = args[2].equals("-") ? new int[0] : load(Path.of(args[2]));
        keys = Integer.parseInt(args[3]);
        ops = Integer.parseInt(args[4]);
        cache = Caffeine.newBuilder().maximumSize(Long.parseLong(args[5])).build();
    }

    private static int[] load(Path path) throws Exception {
        try (FileChannel file = FileChannel.open(path)) {
            var map = file.map(FileChannel.MapMode.READ_ONLY, 0, file.size());
            int[] all = new int[(int) (file.size() / 4)];
            map.order(ByteOrder.nativeOrder()).asIntBuffer().get(all);
            return all;
        }
    }

    private static long splitmix64(long x) {
        x += 0x9e3779b97f4a7c15L;
        x = (x ^ (x >>> 30)) * 0xbf58476d1ce4e5b9L;
        x = (x ^ (x >>> 27)) * 0x94d049bb133111ebL;
        return x ^ (x >>> 31);
    }

    private static byte[] makeValue(Key key) {
        byte[] value = new byte[64];
        LONG.set(value, 0, key.first);
        for (int i = 1; i < 8; i++) {
            LONG.set(value, 8 * i, key.second + i);
        }
        return value;
    }

    private boolean copyOut(Key key, byte[] out) {
        byte[] value = cache.getIfPresent(key);
        if (value == null) {
            return false;
        }
        System.arraycopy(value, 0, out, 0, 64);
        return true;
    }

    private void fill() {
        if (kind.equals("mixed")) {
            for (int access : stream) {
                Key key = new Key(access & ~SET_BIT);
                cache.put(key, makeValue(key));
            }
        } else {
            for (int i = 0; i < keys; i++) {
                Key key = new Key(i);
                cache.put(key, makeValue(key));
            }
        }
        cache.cleanUp();
    }

    private void workGet(Count count, int at) {
        byte[] out = new byte[64];
        for (int n = 0; n < ops; n++) {
            Key key = new Key(stream[at]);
            at = at + 1 == stream.length ? 0 : at + 1;
            count.add(key, copyOut(key, out), out);
        }
    }

    private void workBatch(Count count, int at) {
        Key[] batch = new Key[BATCH];
        byte[][] outs = new byte[BATCH][64];
        boolean[] found = new boolean[BATCH];
        for (int n = 0; n < ops; n += BATCH) {
            for (int i = 0; i < BATCH; i++) {
                batch[i] = new Key(stream[at]);
                at = at + 1 == stream.length ? 0 : at + 1;
            }
            for (int i = 0; i < BATCH; i++) {
                found[i] = copyOut(batch[i], outs[i]);
            }
            for (int i = 0; i < BATCH; i++) {
                count.add(batch[i], found[i], outs[i]);
            }
        }
    }

    private void workMixed(Count count, int at) {
        byte[] out = new byte[64];
        for (int n = 0; n < ops; n++) {
            int access = stream[at];
            Key key = new Key(access & ~SET_BIT);
            at = at + 1 == stream.length ? 0 : at + 1;
            if ((access & SET_BIT) != 0) {
                cache.put(key, makeValue(key));
            } else {
                count.add(key, copyOut(key, out), out);
            }
        }
    }

    private Count work(CyclicBarrier barrier, int first) throws Exception {
        Count count = new Count();
        barrier.await();
        count.begin = System.nanoTime();
        switch (kind) {
            case "batch" -> workBatch(count, first);
            case "mixed" -> workMixed(count, first);
            default -> workGet(count, first);
        }
        count.end = System.nanoTime();
        return count;
    }

    private String run(int run, int threads) throws Exception {
        CyclicBarrier barrier = new CyclicBarrier(threads);
        Count[] counts = new Count[threads];
        Thread[] all = new Thread[threads];
        for (int t = 0; t < threads; t++) {
            int thread = t;
            int first = (int) ((t * (long) (stream.length / threads) + (long) run * ops)
                    % stream.length);
            all[t] = new Thread(() -> {
                try {
                    counts[thread] = work(barrier, first);
                } catch (Exception e) {
                    throw new IllegalStateException(e);
                }
            });
            all[t].start();
        }
        Count sum = new Count();
        long begin = Long.MAX_VALUE;
        long end = Long.MIN_VALUE;
        for (int t = 0; t < threads; t++) {
            all[t].join();
            sum.gets += counts[t].gets;
            sum.hits += counts[t].hits;
            sum.wrong += counts[t].wrong;
            sum.checksum += counts[t].checksum;
            begin = Math.min(begin, counts[t].begin);
            end = Math.max(end, counts[t].end);
        }
        return String.format(Locale.ROOT,
                "{\"ns\":%.3f,\"gets\":%d,\"hits\":%d,\"wrong\":%d,\"checksum\":\"%016x\"}",
                (end - begin) / (double) ops, sum.gets, sum.hits, sum.wrong, sum.checksum);
    }

    /** The live heap: what the JVM keeps resident depends on its settings, not on the cache. */
    private static long heapBytes() throws InterruptedException {
        Runtime runtime = Runtime.getRuntime();
        for (int i = 0; i < 3; i++) {
            System.gc();
            Thread.sleep(50);
        }
        return runtime.totalMemory() - runtime.freeMemory();
    }

    public static void main(String[] args) throws Exception {
        if (args.length != 6) {
            System.err.println("usage: Peer SUBJECT KIND STREAM|- KEYS OPS CAPACITY");
            System.exit(2);
        }
        Peer peer = new Peer(args);
        boolean overhead = peer.kind.equals("overhead");
        double bytes = 0;
        if (overhead) {
            long before = heapBytes();
            peer.fill();
            bytes = (heapBytes() - before) / (double) peer.keys - 80;
        } else {
            peer.fill();
            long until = System.nanoTime() + WARM_UP_NS;
            while (System.nanoTime() < until) {
                peer.run(0, 1);
                peer.run(0, 2);
            }
        }
        System.out.println("{\"ready\":true}");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        String line;
        for (int n = 0; (line = in.readLine()) != null && line.startsWith("run "); n++) {
            System.out.println(overhead
                    ? String.format(Locale.ROOT, "{\"bytes\":%.2f,\"of\":\"heap\"}", bytes)
                    : peer.run(n, Integer.parseInt(line.substring(4))));
        }
    }
}
