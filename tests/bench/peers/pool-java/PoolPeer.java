// SPDX-License-Identifier: MIT

import com.zaxxer.hikari.HikariConfig;
import com.zaxxer.hikari.HikariDataSource;
import java.io.PrintWriter;
import java.sql.Connection;
import java.util.Arrays;
import java.util.concurrent.locks.LockSupport;
import java.util.logging.Logger;
import java.util.stream.LongStream;
import javax.sql.DataSource;

/**
 * HikariCP in bench-pool, in the shape of its own ConnectionBench: getConnection and close, no SQL.
 * The protocol is that of pool_subject.h; before the measured run there is one of the same length,
 * for the compiler.
 */
public final class PoolPeer {
    static final int BATCH = 64;

    static final class Stubs implements DataSource {
        public Connection getConnection() { return new StubConnection(); }
        public Connection getConnection(String user, String password) { return getConnection(); }
        public PrintWriter getLogWriter() { return null; }
        public void setLogWriter(PrintWriter out) { }
        public void setLoginTimeout(int seconds) { }
        public int getLoginTimeout() { return 0; }
        public Logger getParentLogger() { return null; }
        public <T> T unwrap(Class<T> type) { return null; }
        public boolean isWrapperFor(Class<?> type) { return false; }
    }

    static volatile int phase;
    static int holdUs;
    static HikariDataSource pool;

    static final class Worker extends Thread {
        long count;
        long[] waits = new long[1 << 17];
        int waitCount;

        @Override
        public void run() {
            try {
                for (int now; (now = phase) != 2;) {
                    if (holdUs > 0) {
                        long begun = System.nanoTime();
                        Connection c = pool.getConnection();
                        if (now == 1 && waitCount < waits.length)
                            waits[waitCount++] = System.nanoTime() - begun;
                        LockSupport.parkNanos(holdUs * 1000L);
                        c.close();
                        continue;
                    }
                    for (int i = 0; i < BATCH; i++)
                        pool.getConnection().close();
                    if (now == 1)
                        count += BATCH;
                }
            } catch (Exception e) {
                e.printStackTrace();
                System.exit(1);
            }
        }
    }

    public static void main(String[] a) throws Exception {
        int threads = Integer.parseInt(a[1]);
        int connections = Integer.parseInt(a[2]);
        int ms = Integer.parseInt(a[3]);
        holdUs = Integer.parseInt(a[4]);
        HikariConfig config = new HikariConfig();
        config.setDataSource(new Stubs());
        config.setMaximumPoolSize(connections);
        config.setMinimumIdle(connections);
        config.setConnectionTimeout(30000);
        config.setAutoCommit(true);
        pool = new HikariDataSource(config);
        while (pool.getHikariPoolMXBean().getIdleConnections() < connections)
            Thread.sleep(10);
        Worker[] workers = new Worker[threads];
        for (int i = 0; i < threads; i++) {
            workers[i] = new Worker();
            workers[i].start();
        }
        Thread.sleep(ms);
        phase = 1;
        long begun = System.nanoTime();
        Thread.sleep(ms);
        phase = 2;
        long took = System.nanoTime() - begun, total = 0;
        for (Worker w : workers) {
            w.join();
            total += w.count;
        }
        if (holdUs == 0) {
            System.out.printf("{\"ns\": %.3f}%n", (double) took / total);
        } else {
            long[] all = Arrays.stream(workers)
                    .flatMapToLong(w -> Arrays.stream(w.waits, 0, w.waitCount)).sorted().toArray();
            int n = all.length;
            System.out.printf("{\"n\": %d, \"mean\": %d, \"p50\": %d, \"p99\": %d, \"p999\": %d, "
                    + "\"max\": %d}%n", n, LongStream.of(all).sum() / n, all[n / 2],
                    all[(int) (n * 99L / 100)], all[(int) (n * 999L / 1000)], all[n - 1]);
        }
        pool.close();
    }
}
