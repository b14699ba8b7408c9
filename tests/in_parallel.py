"""Runs the test binaries that `cargo test --no-run --message-format=json` names on standard input, two at a time
(in CI one).

Most of them wait (for a pace, a broker, a clock) rather than work. Those that judge time or memory to a few percent run
alone, first. What a binary prints is shown as a whole once it has ended, so that it can be read; a failure ends nothing, but
the exit code is 1.
"""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

# CI's machine may have other guests: there it has the time to run one after the other.
AT_ONCE = 1 if os.environ.get("CI") else 2
# No binary takes a third of this: one that does is stuck.
LONGEST_SECONDS = 15 * 60
ALONE = {
    "check_keeps_memory_flat",
    "log_holds_nothing_up",
    "no_pin_left_in_memory",
    "pace_is_fair",
    "pace_uses_the_limit_and_keeps_it",
    "serve_keeps_its_bounds",
}
# Long ones first, so that none of them is left over at the end.
LONG = [
    "worker_answers_every_job",
    "a_dead_host_is_named_and_holds_up_only_its_own",
    "every_operation_has_its_effect_once",
    "serve_publishes_to_rabbitmq",
    "pin_pages",
    "killed_at_any_stage_one_card_per_row",
    "what_changed_while_a_job_waited_is_noticed",
    "what_stripe_says_of_everybody_spends_no_batch",
    "decision_model",
    "worker_shows_no_pin",
]


def binaries():
    """Name and path of each test binary, as cargo lists them."""
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
            yield message["target"]["name"], message["executable"]


def run(named):
    """Runs one; whether it passed."""
    name, path = named
    began = time.monotonic()
    environment = {**os.environ, "CARGO_MANIFEST_DIR": os.getcwd()}
    running = subprocess.Popen([path, "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    try:
        said, _ = running.communicate(timeout=LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        # What it printed tells which tests have not ended. What it started may keep the pipe open.
        running.kill()
        try:
            said, _ = running.communicate(timeout=10)
        except subprocess.TimeoutExpired as kept:
            said = kept.output or b""
    took = time.monotonic() - began
    word = "ok" if running.returncode == 0 else f"FAILED ({running.returncode})"
    text = "" if running.returncode == 0 else said.decode(errors="replace")
    print(f"{text}{name}: {word}, {took:.0f} s", flush=True)
    return running.returncode == 0


def order(named):
    name = named[0]
    return LONG.index(name) if name in LONG else len(LONG)


def main():
    found = sorted(binaries(), key=order)
    if not found:
        sys.exit("no test binary was built")
    passed = [run(one) for one in found if one[0] in ALONE]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        passed += pool.map(run, [one for one in found if one[0] not in ALONE])
    print(f"{passed.count(True)} of {len(passed)} test binaries passed", flush=True)
    sys.exit(0 if all(passed) else 1)


main()
