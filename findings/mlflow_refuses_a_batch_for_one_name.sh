#!/usr/bin/env bash
# One metric's name makes MLflow refuse all that is logged with it, with the same code as a deleted experiment.
#
# Versions: mlflow 3.17.2, Python 3.11. Seen on 2026-11-30.
# Guess:    log_batch stores what is right and reports what is wrong; or its error tells bad input from a place that is closed.
# Seen:     of two metrics and a parameter, none is stored when one name has an @. The code is INVALID_PARAMETER_VALUE, which is
#           also what a deleted experiment answers, so that neither the code nor a second try tells whose fault it is.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mlflow==3.17.2
cat > "$folder/mlflow_refuses_a_batch_for_one_name.py" <<'PYTHON'
import os
import tempfile

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

with tempfile.TemporaryDirectory() as folder:
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/m.db")
    experiment = client.create_experiment("e", artifact_location=f"file://{folder}/a")
    run = client.create_run(experiment).info.run_id
    try:
        client.log_batch(run, [Metric("loss", 1.0, 0, 0), Metric("acc@5", 0.5, 0, 0)], [Param("lr", "0.1")])
        code = "none"
    except MlflowException as error:
        code = error.error_code
    data = client.get_run(run).data
    print("a bad name:", code, "stored:", data.metrics, data.params)
    assert code == "INVALID_PARAMETER_VALUE", code
    assert not data.metrics, data.metrics
    assert not data.params, data.params
    client.delete_experiment(experiment)
    try:
        client.create_run(experiment)
        other = "none"
    except MlflowException as error:
        other = error.error_code
    print("a deleted experiment:", other)
    assert other == code, other
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/mlflow_refuses_a_batch_for_one_name.py"
