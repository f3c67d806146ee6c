"""What a worker is told arrives as it was sent, through any wire."""

from __future__ import annotations

import json

import pytest
from harness import QUICK, job

from dlsys.jobs.launch.assignment import Assignment
from dlsys.jobs.trial import TrialLeg
from dlsys.spec.kinds import AnyJob, job_of

AGENT = {
    "kind": "rl",
    "name": "agent",
    "environment": {"name": "CartPole-v1", "options": {"render_mode": "rgb_array"}},
    "algorithm": {"name": "dqn", "double": True},
    "stop": {"target": {"valid/return": ">= 475"}, "time": "2 minutes"},
}
JOBS = {
    "train": job(QUICK, "strategy={name: ps, servers: 2}", "resources.workers=2", "checkpoint.every=5 s"),
    "rl": job_of(AGENT),
    "script": job_of({"kind": "script", "name": "s", "command": ["python", "train.py", "--lr", "0.1"]}),
}


@pytest.mark.parametrize("told", JOBS.values(), ids=JOBS)
def test_it_is_the_same_at_the_other_end(told: AnyJob) -> None:
    sent = Assignment("/runs/a", told, "/jobs", "", 2, 3, {"key": "k"}, "/runs/b", 4, False, "s3://b/x")
    assert Assignment.from_dict(json.loads(json.dumps(sent.to_dict()))) == sent
    leg = TrialLeg(sent, "valid/loss", "/runs/c", 7)
    assert TrialLeg.from_dict(json.loads(json.dumps(leg.to_dict()))) == leg
