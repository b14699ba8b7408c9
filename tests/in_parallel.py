"""Runs the tests of the binaries that `cargo test --no-run --message-format=json` names on standard input, several files at a time.

Each file of tests/ gets a process of its own, although a folder's files are built into one binary: what one of them does to
its process (its memory, its log, its environment) is nobody else's.
Most of them wait (for a pace, a broker, a clock) rather than work. So there are as many at a time as there are processors,
and more while processors stand idle: on a machine that has other guests there are fewer. Those that judge time or memory to
a few percent run alone, first, and then those that judge seconds, two at a time. They share a RabbitMQ node (tests/support/rabbit.rs), which ends with the run.
What a file prints is shown as a whole once it has ended, so that it can be read; a failure ends nothing, but the exit code
is 1.
"""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

CORES = os.cpu_count() or 2
# Where the machine may have other guests (CI), a second one is only begun while there is room.
AT_ONCE_MIN, AT_ONCE_MAX = (1, CORES) if os.environ.get("CI") else (CORES, 4 * CORES)
QUIET_AT_ONCE = 1 if os.environ.get("CI") else 2
# Each of them runs several tests at a time, whose browsers and databases need memory.
FREE_MIB_MIN = 2048
# One more is begun if this share of the processors was idle for a while, one fewer if this one was.
IDLE_ENOUGH, IDLE_TOO_LITTLE = 0.3, 0.05
LOOKED_AT_SECONDS = 3
# No file takes a third of this: one that does is stuck.
LONGEST_SECONDS = 15 * 60
ALONE = {
    "check_keeps_memory_flat",
    "log_holds_nothing_up",
    "no_pin_left_in_memory",
    "pace_is_fair",
    "pace_uses_the_limit_and_keeps_it",
    "serve_keeps_its_bounds",
}
# What these judge is spoilt by a machine that is busy for seconds; they themselves mostly wait.
QUIET = {
    "a_cluster_loses_its_parts",
    "a_rolling_restart_is_not_felt",
    "accounts_are_apart",
    "two_runs_at_once_are_as_one",
}
# Long ones first, so that none of them is left over at the end.
LONG = [
    "simulation",
    "accounts_are_apart",
    "worker_stands_a_bad_day",
    "worker_survives_crashes",
    "webhooks_arrive",
    "serve_page",
    "worker_answers_every_job",
    "serve_publishes_to_rabbitmq",
    "who_sent_a_job_learns_its_end",
    "pin_pages",
    "a_dead_host_is_named_and_holds_up_only_its_own",
    "every_operation_has_its_effect_once",
    "killed_at_any_stage_one_card_per_row",
    "what_changed_while_a_job_waited_is_noticed",
    "what_stripe_says_of_everybody_spends_no_batch",
    "a_database_that_goes_away_is_waited_for",
    "decision_model",
    "worker_shows_no_pin",
]


def files():
    """Each file of tests: its name, and the command that runs it alone."""
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("reason") != "compiler-artifact" or not message["profile"]["test"] or not message["executable"]:
            continue
        target, path = message["target"], message["executable"]
        folder = pathlib.Path(target["src_path"]).parent
        tests = {}
        if target["kind"] == ["test"]:
            listed = subprocess.run([path, "--list", "--format=terse"], stdout=subprocess.PIPE, text=True, check=False).stdout
            for test in (line.removesuffix(": test") for line in listed.splitlines() if line.endswith(": test")):
                tests.setdefault(test.split("::")[0], []).append(test)
        # A binary of several files consists of modules that are such files; else it is one file with whatever is below it.
        if len(tests) > 1 and all((folder / f"{name}.rs").is_file() for name in tests):
            if left_out := {file.stem for file in folder.glob("*.rs")} - {"main", *tests}:
                sys.exit(f"{target['src_path']} does not name {', '.join(sorted(left_out))}, whose tests would not run")
            for name, its in tests.items():
                yield name, [path, "--quiet", "--exact", *its]
        else:
            yield target["name"], [path, "--quiet"]


class Running:
    """One file under way."""

    def __init__(self, folder, name, command):
        self.name = name
        self.began = time.monotonic()
        self.said = tempfile.TemporaryFile()
        environment = {**os.environ, "CARGO_MANIFEST_DIR": os.getcwd(), "EMBOSSER_TESTS_RUN": folder}
        self.process = subprocess.Popen(command, stdout=self.said, stderr=subprocess.STDOUT, env=environment)

    def ended(self):
        """Whether it passed, once it has ended; kills what is stuck."""
        took = time.monotonic() - self.began
        pid, status, used = os.wait4(self.process.pid, os.WNOHANG)
        if pid == 0:
            # What it printed tells which tests have not ended.
            if took > LONGEST_SECONDS:
                self.process.kill()
            return None
        self.process.returncode = os.waitstatus_to_exitcode(status)
        passed = self.process.returncode == 0
        if not passed:
            self.said.seek(0)
            print(self.said.read().decode(errors="replace"), end="")
        self.said.close()
        word = "ok" if passed else f"FAILED ({self.process.returncode})"
        # Of what it started, those that it waited for.
        worked = used.ru_utime + used.ru_stime
        print(f"{self.name}: {word}, {took:.0f} s, {worked:.0f} s of a processor", flush=True)
        return passed


class Idle:
    """Which share of the processors was idle of late."""

    def __init__(self):
        self.before = self.times()

    def times(self):
        with open("/proc/stat") as stat:
            return [int(word) for word in stat.readline().split()[1:9]]

    def share(self):
        now = self.times()
        passed = [later - earlier for later, earlier in zip(now, self.before)]
        self.before = now
        return passed[3] / max(1, sum(passed))


def free_mib():
    """Memory that can be had without swapping."""
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) // 1024


def run(folder, waiting, at_once, at_once_max):
    """Runs these, so many at once at first and at most that many; answers which passed."""
    waiting, running, passed = list(waiting), [], []
    idle, looked = Idle(), time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(Running(folder, *waiting.pop(0)))
            time.sleep(0.05)
            for one in list(running):
                if (ended := one.ended()) is not None:
                    passed.append(ended)
                    running.remove(one)
            if time.monotonic() - looked >= LOOKED_AT_SECONDS:
                share, looked = idle.share(), time.monotonic()
                if share > IDLE_ENOUGH and len(running) == at_once and free_mib() > FREE_MIB_MIN:
                    at_once = min(at_once + 1, at_once_max)
                elif share < IDLE_TOO_LITTLE:
                    at_once = max(at_once - 1, min(AT_ONCE_MIN, at_once_max))
    finally:
        # Whoever stops this ends them: none is to begin a node that nobody ends.
        for one in running:
            one.process.kill()
            one.process.wait()
    return passed


def end_broker(folder):
    """Ends the node that the first of them who needed one has started there."""
    kept = pathlib.Path(folder, "broker.json")
    if kept.exists():
        node = json.loads(kept.read_text())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node["process_group"], signal.SIGKILL)
        subprocess.run(["epmd", "-port", str(node["epmd_port"]), "-kill"], stdout=subprocess.DEVNULL, check=False)


def order(named):
    name = named[0]
    return LONG.index(name) if name in LONG else len(LONG)


def main():
    began = time.monotonic()
    found = sorted(files(), key=order)
    if not found:
        sys.exit("no test binary was built")
    # Whoever stops this with a signal stops the node as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            passed = run(folder, [one for one in found if one[0] in ALONE], 1, 1)
            passed += run(folder, [one for one in found if one[0] in QUIET], QUIET_AT_ONCE, QUIET_AT_ONCE)
            others = [one for one in found if one[0] not in ALONE | QUIET]
            passed += run(folder, others, AT_ONCE_MIN, AT_ONCE_MAX)
        finally:
            end_broker(folder)
    took = time.monotonic() - began
    print(f"{passed.count(True)} of {len(passed)} files of tests passed in {took:.0f} s", flush=True)
    sys.exit(0 if all(passed) else 1)


main()
