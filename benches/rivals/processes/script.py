"""Pools of Python: told a job a line, answers with a line, both JSON.

usage: script.py KIND WORKERS, where KIND is pool, executor, executor-chunked or joblib
"""

import array
import json
import os
import shutil
import signal
import sys
import tempfile
import time

now = time.perf_counter
MASK = (1 << 64) - 1


# What runs in workers.


def square(x):
    return x * x


def echo(payload):
    return payload


def total(numbers):
    return int(numbers.sum())  # wraps around


def hold(folder, index):
    unfinished = os.path.join(folder, f"{index}.part")
    with open(unfinished, "w") as file:
        file.write(str(os.getpid()))
    os.rename(unfinished, os.path.join(folder, str(index)))
    began = now()
    while not os.path.exists(os.path.join(folder, "leave")) and now() - began < 30:
        time.sleep(0.001)
    return os.getpid()


def who_is_it():
    return os.getpid()


# The pools.


class Pool:
    """multiprocessing.Pool"""

    def __init__(self, workers):
        import multiprocessing

        self.pool = multiprocessing.Pool(workers)

    def submit(self, function, *arguments):
        return self.pool.apply_async(function, arguments)

    def wait(self, handle):
        return handle.get()

    def map(self, function, items):
        return self.pool.map(function, items)

    def close(self):
        self.pool.terminate()
        self.pool.join()


class Executor:
    """concurrent.futures.ProcessPoolExecutor"""

    chunked = False

    def __init__(self, workers):
        import concurrent.futures

        self.workers = workers
        self.pool = concurrent.futures.ProcessPoolExecutor(workers)

    def submit(self, function, *arguments):
        return self.pool.submit(function, *arguments)

    def wait(self, handle):
        return handle.result()

    def map(self, function, items):
        if self.chunked:
            return self.pool.map(function, items, chunksize=-(-len(items) // (4 * self.workers)))
        return self.pool.map(function, items)

    def close(self):
        self.pool.shutdown(wait=True, cancel_futures=True)


class ChunkedExecutor(Executor):
    chunked = True


class Joblib:
    """joblib.Parallel in a `with` block, so that its workers stay. It has no submit, only calls that are waited for."""

    def __init__(self, workers):
        import joblib

        self.delayed = joblib.delayed
        self.pool = joblib.Parallel(n_jobs=workers)
        self.pool.__enter__()

    def submit(self, function, *arguments):
        return self.pool([self.delayed(function)(*arguments)])

    def wait(self, handle):
        return handle[0]

    def close(self):
        self.pool.__exit__(None, None, None)


POOLS = {"pool": Pool, "executor": Executor, "executor-chunked": ChunkedExecutor, "joblib": Joblib}


# The jobs.


def sample(seconds, figures, check):
    return {"sample": {"seconds": seconds, "figures": figures, "check": check & MASK}}


def percentile(times, share):
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def middle(times):
    times = sorted(times)
    return (times[(len(times) - 1) // 2] + times[len(times) // 2]) / 2


def submit(pool, n):
    began = now()
    handles = [pool.submit(square, x) for x in range(n)]
    total = sum(pool.wait(handle) for handle in handles)
    seconds = now() - began
    return sample(seconds, {"rate": n / seconds}, total)


def one_by_one(pool, n, idle_us):
    total, times = 0, []
    start = now()
    for x in range(n):
        if idle_us:
            time.sleep(idle_us / 1e6)
        began = now()
        result = pool.wait(pool.submit(square, x))
        times.append((now() - began) * 1e6)
        total += result
    figures = {name: percentile(times, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("min", 0.0))}
    return sample(now() - start, figures, total)


def map_all(pool, n):
    began = now()
    total = sum(pool.map(square, range(n)))
    seconds = now() - began
    return sample(seconds, {"rate": n / seconds}, total)


def payload(pool, kind, size):
    if kind == "bytes":
        return (bytes(range(251)) * (size // 251 + 1))[:size]
    floats = array.array("d", (index / 3.0 for index in range(size // 8)))
    if isinstance(pool, Joblib):
        try:
            import numpy  # what joblib maps instead of sending it

            return numpy.array(floats)
        except ImportError:
            pass
    return floats


def echo_all(pool, kind, size, n):
    sent = payload(pool, kind, size)
    times, right = [], 0
    for _ in range(n):
        began = now()
        returned = pool.wait(pool.submit(echo, sent))
        seconds = now() - began
        same = returned == sent
        right += bool(same if isinstance(same, bool) else same.all())
        began = now()
        del returned
        times.append(seconds + now() - began)
    return sample(sum(times), {"gb_per_s": 2 * size / middle(times) / 1e9}, right)


def sum_shared(pool, size, n):
    if not isinstance(pool, Joblib):
        raise RuntimeError("it shares no memory")
    import numpy

    numbers = numpy.arange(size // 8, dtype=numpy.uint64)
    sums, times = 0, []
    for _ in range(n):
        began = now()
        sums += pool.wait(pool.submit(total, numbers))
        times.append((now() - began) * 1e3)
    return sample(sum(times) / 1e3, {"ms": middle(times), "first_ms": times[0]}, sums)


def first_result(make, n):
    total, times = 0, []
    for _ in range(n):
        began = now()
        pool = make()
        total += pool.wait(pool.submit(square, 3))
        times.append((now() - began) * 1e3)
        pool.close()
    return sample(sum(times) / 1e3, {"ms": middle(times)}, total)


def process_of(folder, index):
    path = os.path.join(folder, str(index))
    began = now()
    while not os.path.exists(path):
        if now() - began > 20:
            raise RuntimeError("a call has not begun in 20 seconds")
        time.sleep(0.001)
    with open(path) as file:
        return int(file.read())


def let_go(folder):
    open(os.path.join(folder, "leave"), "w").close()


def death(pool):
    """A Pool never says that a worker died. An executor is broken by it, so it has no strength to come back to."""
    folder = tempfile.mkdtemp(prefix="rivals-")
    try:
        survivor, victim = [pool.submit(hold, folder, index) for index in range(2)]
        processes = [process_of(folder, index) for index in range(2)]
        killed = now()
        os.kill(processes[1], signal.SIGKILL)
        if isinstance(pool, Pool):
            successor = pool.wait(pool.submit(who_is_it))
            seconds = now() - killed
            let_go(folder)
            right = pool.wait(survivor) == processes[0] and successor not in processes
            return sample(seconds, {"strength_ms": seconds * 1e3}, right)
        try:
            pool.wait(victim)
            right = False
        except Exception:
            right = True
        seconds = now() - killed
        return sample(seconds, {"seen_ms": seconds * 1e3}, right)
    finally:
        let_go(folder)
        shutil.rmtree(folder, ignore_errors=True)


def descendants():
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parent = int(file.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    found = [os.getpid()]
    for process in found:
        found.extend(children.get(process, []))
    return found[1:]


def memory_kb(process, kinds):
    with open(f"/proc/{process}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(kinds))


def idle_memory(make, n, workers):
    pool = make()
    began = now()
    total = sum(pool.wait(handle) for handle in [pool.submit(square, x) for x in range(n)])
    seconds = now() - began
    time.sleep(0.3)
    own = descendants()
    pss = sum(memory_kb(process, ("Pss:",)) for process in own) / workers
    private = sum(memory_kb(process, ("Private_Clean:", "Private_Dirty:")) for process in own) / workers
    pool.close()
    return sample(seconds, {"pss_kb": pss, "private_kb": private}, total)


def descriptors(pool, n, workers):
    folder = tempfile.mkdtemp(prefix="rivals-")
    try:
        holds = [pool.submit(hold, folder, index) for index in range(workers)]
        for index in range(workers):
            process_of(folder, index)
        before = len(os.listdir("/proc/self/fd"))
        queued = [pool.submit(square, x) for x in range(n)]
        more = len(os.listdir("/proc/self/fd")) - before
        let_go(folder)
        for handle in holds:
            pool.wait(handle)
        began = now()
        total = sum(pool.wait(handle) for handle in queued)
        return sample(now() - began, {"each": max(more, 0) / n}, total)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    kind, workers = sys.argv[1], int(sys.argv[2])

    def say(answer):
        print(json.dumps(answer), flush=True)

    try:
        # What is imported now is not in the time to the first result.
        if kind == "joblib":
            import joblib  # noqa: F401
        else:
            import concurrent.futures.process
            import multiprocessing.pool  # noqa: F401
    except ImportError as error:
        return say({"failed": str(error)})
    say("done")

    def make():
        return POOLS[kind](workers)

    pool = None
    for line in sys.stdin:
        job = json.loads(line)
        name = job["job"]
        try:
            if name == "open":
                pool = make()
                for handle in [pool.submit(square, x) for x in range(50)]:
                    pool.wait(handle)
                say("done")
            elif name == "close":
                if pool:
                    pool.close()
                pool = None
                say("done")
            elif name == "submit":
                say(submit(pool, job["n"]))
            elif name == "one_by_one":
                say(one_by_one(pool, job["n"], job["idle_us"]))
            elif name == "map":
                say(map_all(pool, job["n"]))
            elif name == "echo":
                say(echo_all(pool, job["kind"], job["bytes"], job["n"]))
            elif name == "sum_shared":
                say(sum_shared(pool, job["bytes"], job["n"]))
            elif name == "first_result":
                say(first_result(make, job["n"]))
            elif name == "death":
                say(death(pool))
            elif name == "idle_memory":
                say(idle_memory(make, job["n"], workers))
            elif name == "descriptors":
                say(descriptors(pool, job["n"], workers))
            else:
                say({"failed": f"no such job: {name}"})
        except Exception as error:
            say({"failed": f"{type(error).__name__}: {error}"})
    if pool:
        pool.close()


if __name__ == "__main__":
    main()
