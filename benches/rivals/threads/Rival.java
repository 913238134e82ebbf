// Java's ForkJoinPool: told a job a line, answers with a line of JSON. usage: java Rival.java WORKERS

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.IntStream;

public class Rival {
    static ForkJoinPool pool;

    static long window(long n, long outstanding) throws Exception {
        ArrayDeque<Future<Long>> futures = new ArrayDeque<>((int) Math.min(n, outstanding) + 1);
        long sum = 0;
        for (long i = 0; i < n; i++) {
            if (futures.size() == outstanding) sum += futures.poll().get();
            final long x = i;
            futures.add(pool.submit(() -> x * x));
        }
        for (Future<Long> future : futures) sum += future.get();
        return sum;
    }

    static class Grow extends RecursiveAction {
        final int depth;
        final CountDownLatch[] leaves;
        final int place;

        Grow(int depth, int place, CountDownLatch[] leaves) {
            this.depth = depth;
            this.place = place;
            this.leaves = leaves;
        }

        protected void compute() {
            if (depth == 0) {
                leaves[place % leaves.length].countDown();
                return;
            }
            new Grow(depth - 1, 2 * place, leaves).fork();
            new Grow(depth - 1, 2 * place + 1, leaves).fork();
        }
    }

    static class Awaited extends RecursiveTask<Long> {
        final int depth;

        Awaited(int depth) {
            this.depth = depth;
        }

        protected Long compute() {
            if (depth == 0) return 1L;
            Awaited left = new Awaited(depth - 1), right = new Awaited(depth - 1);
            left.fork();
            right.fork();
            return right.join() + left.join() + 1;
        }
    }

    static class Fib extends RecursiveTask<Long> {
        final long n;

        Fib(long n) {
            this.n = n;
        }

        protected Long compute() {
            if (n < 2) return n;
            Fib a = new Fib(n - 1);
            a.fork();
            long b = new Fib(n - 2).compute();
            return a.join() + b;
        }
    }

    static long contended(long n, int submitters) throws Exception {
        AtomicLong sum = new AtomicLong();
        Thread[] threads = new Thread[submitters];
        for (int i = 0; i < submitters; i++) {
            threads[i] = new Thread(() -> {
                try {
                    sum.addAndGet(window(n / submitters, Long.MAX_VALUE));
                } catch (Exception error) {
                    throw new RuntimeException(error);
                }
            });
        }
        for (Thread thread : threads) thread.start();
        for (Thread thread : threads) thread.join();
        return sum.get();
    }

    static long joins(long n) {
        return n < 2 ? 0 : joins(n - 1) + joins(n - 2) + 1;
    }

    static String answer(String[] words) throws Exception {
        long n = Long.parseLong(words[1]);
        long more = words.length > 2 ? Long.parseLong(words[2]) : 0;
        long[] items = words[0].equals("squares") ? IntStream.range(0, (int) n).asLongStream().toArray() : null;
        long[] results = null;
        double[] times = null;
        long began = System.nanoTime();
        long each = n, check = 0;
        switch (words[0]) {
            case "hello" -> {}
            case "submit" -> check = window(n, Long.MAX_VALUE);
            case "window" -> check = window(n, more);
            case "contended" -> check = contended(n, (int) more);
            case "one_by_one" -> {
                times = new double[(int) n];
                for (int i = 0; i < n; i++) {
                    if (more > 0) Thread.sleep(more / 1000, (int) (more % 1000) * 1000);
                    final long x = i, submitted = System.nanoTime();
                    check += pool.submit(() -> x * x).get();
                    times[i] = (System.nanoTime() - submitted) / 1e3;
                }
            }
            case "tree" -> {
                CountDownLatch[] leaves = new CountDownLatch[64];
                for (int i = 0; i < 64; i++) leaves[i] = new CountDownLatch((1 << n) / 64);
                pool.execute(new Grow((int) n, 1, leaves));
                for (CountDownLatch latch : leaves) latch.await();
                each = 2L << n;
                check = 1L << n;
            }
            case "awaited" -> {
                check = pool.invoke(new Awaited((int) n));
                each = 2L << n;
            }
            case "fib" -> {
                each = joins(n);
                began = System.nanoTime();
                check = pool.invoke(new Fib(n));
            }
            case "squares" ->
                results = pool.submit(() -> Arrays.stream(items).parallel().map(x -> x * x + 1).toArray()).get();
            case "completion" -> {
                ExecutorCompletionService<Long> service = new ExecutorCompletionService<>(pool);
                for (long i = 0; i < n; i++) {
                    final long x = i;
                    service.submit(() -> x * x);
                }
                for (long i = 0; i < n; i++) check += service.take().get();
            }
            default -> throw new IllegalArgumentException(words[0]);
        }
        double seconds = (System.nanoTime() - began) / 1e9;
        String figures = "\"ns\": " + seconds * 1e9 / Math.max(each, 1) + ", \"ms\": " + seconds * 1e3;
        if (results != null) {
            for (long result : results) check = Long.rotateLeft(check, 1) ^ result;
        }
        if (times != null) {
            Arrays.sort(times);
            int last = times.length - 1;
            figures = "\"p50\": " + times[times.length / 2] + ", \"p99\": " + times[Math.min(last, times.length * 99 / 100)]
                + ", \"min\": " + times[0];
        }
        return "{\"seconds\": " + seconds + ", \"figures\": {" + figures + "}, \"check\": " + Long.toUnsignedString(check) + "}";
    }

    public static void main(String[] arguments) throws Exception {
        pool = new ForkJoinPool(Integer.parseInt(arguments[0]));
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null;) {
            System.out.println(answer(line.split(" ")));
            System.out.flush();
        }
        System.exit(0);
    }
}
