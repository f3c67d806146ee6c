#!/usr/bin/env bash
# What a signal's handler raises while ray.wait waits comes out as SystemError.
#
# Versions: ray 2.60.0, Python 3.11. Seen on 2026-11-30.
# Guess:    An exception that a handler of SIGALRM or SIGINT raises comes out of the call that was interrupted,
#           as it does out of time.sleep: except clauses for it work.
# Seen:     Out of ray.wait comes a SystemError ('returned a result with an exception set'), and the handler's
#           exception is its cause: an except clause for it is passed by.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ray==2.60.0
cat > "$folder/ray_wait_hides_a_signal_handlers_exception.py" <<'PYTHON'
import logging
import os
import signal
import time

os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
import ray


class Enough(Exception):
    pass


def alarm(number, frame):
    raise Enough


def told(call):
    signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        call()
    except BaseException as error:
        return type(error).__name__, type(error.__cause__).__name__
    return "nothing", ""


@ray.remote(num_cpus=1)
def slow():
    time.sleep(3)


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
waiting = slow.remote()
asleep, waited = told(lambda: time.sleep(3)), told(lambda: ray.wait([waiting], timeout=3))
print("out of time.sleep:", asleep[0])
print("out of ray.wait:", waited[0], "caused by", waited[1])
ray.get(waiting)
ray.shutdown()
assert asleep[0] == "Enough"
assert waited == ("SystemError", "Enough"), waited
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ray_wait_hides_a_signal_handlers_exception.py"
