#!/usr/bin/env bash
# MLFLOW_RUN_ID hands a run to the first start_run of a process alone: MLflow takes it out of the environment.
#
# Versions: mlflow 3.17.2, Python 3.11. Seen on 2026-11-30.
# Guess:    a variable holds for a process and all that it starts: every start_run of a script that was handed a
#           run, and of the programs that it starts, writes into that run.
# Seen:     the first start_run joins the run; the variable is gone then, the second one makes a run of its own,
#           and a program that is started between the two is handed nothing.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mlflow==3.17.2
cat > "$folder/twice.py" <<'PYTHON'
import logging
import os
import sys

logging.disable(logging.INFO)
import mlflow

mlflow.set_tracking_uri(f"sqlite:///{sys.argv[1]}/mlflow.db")
client = mlflow.MlflowClient()
handed = client.create_run("0").info.run_id
os.environ["MLFLOW_RUN_ID"] = handed
with mlflow.start_run() as first:
    print("the first start_run joins the run that was handed over:", first.info.run_id == handed)
print("the variable is still there:", "MLFLOW_RUN_ID" in os.environ)
with mlflow.start_run() as second:
    print("the second one joins it too:", second.info.run_id == handed)
assert first.info.run_id == handed
assert "MLFLOW_RUN_ID" not in os.environ, "it stays now"
assert second.info.run_id != handed, "it joins now"
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/twice.py" "$folder"
