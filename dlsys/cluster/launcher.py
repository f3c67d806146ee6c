"""A cluster of cloud machines as a file of Ray's cluster launcher.

Every text of the cluster file is a value of that file, but for `setup`, which is shell by its nature, and
`storage`, which start commands name: it is quoted. The token is in no text: Ray's launcher copies its
file, readable by its owner alone, to each machine (`file_mounts`).
https://docs.ray.io/en/latest/cluster/vms/references/ray-cluster-configuration.html
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from dlsys.spec.cluster.providers import Cloud, Machine

Values = dict[str, Any]

# Machines with GPUs, by the beginning of their names (a2, a3, g2, …): they cannot be moved while they run.
_GCP_GPUS = re.compile(r"[ag][0-9]")


def launcher(cluster: Cloud, token: Path, source: Path) -> Values:
    """The launcher's file.

    Args:
        cluster: the cluster.
        token: the file on this machine that holds the token.
        source: the cluster file on this machine.
    """
    head, *groups = cluster.nodes
    here = f"~/.dlsys/clusters/{cluster.name}"
    types = {head.name: _node_type(cluster, head, 0, 0)}
    types |= {group.name: _node_type(cluster, group, group.count, _most(group)) for group in groups}
    return {
        "cluster_name": cluster.name,
        "provider": _provider(cluster),
        "auth": {"ssh_user": cluster.user},
        "max_workers": sum(_most(group) for group in groups),
        "idle_timeout_minutes": cluster.idle_minutes,
        "head_node_type": head.name,
        "available_node_types": types,
        "file_mounts": {f"{here}/token": str(token), f"{here}/cluster.yaml": str(source)},
        "setup_commands": list(cluster.setup),
        "head_start_ray_commands": _start_head(cluster),
        "worker_start_ray_commands": [
            "ray stop",
            f"{_exports(cluster)}; ulimit -n 65536; "
            "ray start --address=$RAY_HEAD_IP:6379 --object-manager-port=8076",
        ],
    }


def _most(machine: Machine) -> int:
    return machine.count if machine.max is None else machine.max


def _provider(cluster: Cloud) -> Values:
    # Machines that are only stopped would go on to cost their disks.
    common: Values = {"type": cluster.provider, "cache_stopped_nodes": False}
    if cluster.zone is not None:
        common["availability_zone"] = cluster.zone
    if cluster.provider == "azure":
        return common | {"location": cluster.region, "resource_group": cluster.project}
    if cluster.provider == "gcp":
        return common | {"region": cluster.region, "project_id": cluster.project}
    return common | {"region": cluster.region}


def _node_type(cluster: Cloud, machine: Machine, least: int, most: int) -> Values:
    given = {"CPU": machine.cpus, "GPU": machine.gpus}
    config = {"aws": _aws, "gcp": _gcp, "azure": _azure}[cluster.provider]
    return {
        # What is not said here, Ray finds out on the machine, and AWS's provider before that.
        "resources": {name: int(number) for name, number in given.items() if number is not None},
        "labels": {"dlsys/group": machine.name},
        "min_workers": least,
        "max_workers": most,
        "node_config": config(cluster, machine),
    }


def _aws(cluster: Cloud, machine: Machine) -> Values:
    config: Values = {"InstanceType": machine.machine}
    if cluster.image is not None:
        config["ImageId"] = cluster.image
    if machine.disk is not None:
        disk = {"VolumeSize": machine.disk, "VolumeType": "gp3"}
        config["BlockDeviceMappings"] = [{"DeviceName": "/dev/sda1", "Ebs": disk}]
    if machine.spot:
        config["InstanceMarketOptions"] = {"MarketType": "spot"}
    return config


def _gcp(cluster: Cloud, machine: Machine) -> Values:
    disk = dict(_of_ray("gcp")["disks"][0]["initializeParams"])
    if cluster.image is not None:
        disk["sourceImage"] = cluster.image
    if machine.disk is not None:
        disk["diskSizeGb"] = machine.disk
    config: Values = {
        "machineType": machine.machine,
        "disks": [{"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": disk}],
    }
    if machine.spot or machine.gpus or _GCP_GPUS.match(machine.machine):
        config["scheduling"] = {"onHostMaintenance": "TERMINATE"}
    if machine.spot:
        config["scheduling"] |= {
            "provisioningModel": "SPOT",
            "instanceTerminationAction": "DELETE",
            "automaticRestart": False,
        }
    return config


def _azure(cluster: Cloud, machine: Machine) -> Values:
    """https://learn.microsoft.com/azure/virtual-machines/linux/cli-ps-findimage: an image is
    `publisher:offer:sku:version`, or the id of one of one's own."""
    parts = ("imagePublisher", "imageOffer", "imageSku", "imageVersion")
    if cluster.image is None:
        default = _of_ray("azure")["azure_arm_parameters"]
        image = {part: default[part] for part in parts}
    elif cluster.image.count(":") == 3:
        image = dict(zip(parts, cluster.image.split(":"), strict=True))
    else:
        image = {"imageId": cluster.image}
    config: Values = {"vmSize": machine.machine, **image}
    if machine.disk is not None:
        config["osDiskSize"] = machine.disk
    if machine.spot:
        config |= {"priority": "Spot", "billingProfile": {"maxPrice": -1}}
    return {"azure_arm_parameters": config}


def _of_ray(provider: str) -> Values:
    """How Ray's own example sets up a head; its file is read without importing Ray."""
    found = importlib.util.find_spec("ray")
    assert found is not None, "dlsys needs it"
    assert found.origin is not None, "a package with a file"
    example = yaml.safe_load(
        Path(found.origin).parent.joinpath("autoscaler", provider, "defaults.yaml").read_text()
    )
    config: Values = example["available_node_types"][example["head_node_type"]]["node_config"]
    return config


def _home(cluster: Cloud) -> str:
    """Where machines keep dlsys's files, as a word of shell."""
    return '"$HOME"/.dlsys' if "://" in cluster.storage else shlex.quote(cluster.storage)


def _exports(cluster: Cloud) -> str:
    token = f'"$HOME"/.dlsys/clusters/{cluster.name}/token'
    auth = f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token}"
    return f"export {auth} RAY_USAGE_STATS_ENABLED=0 DLSYS_HOME={_home(cluster)}"


def _start_head(cluster: Cloud) -> list[str]:
    """Ray's head, and the queue of jobs, which is started again when it ends."""
    folder = f"{_home(cluster)}/clusters/{cluster.name}"
    forever = 'while :; do python -m dlsys.jobs.desk "$0"; sleep 2; done'
    commands = [
        # The machine is this cluster's alone. The brackets keep the pattern from matching itself.
        "pkill -u \"$(id -u)\" -f 'dlsys[.]jobs[.]desk' || true",
        "ray stop",
        f"{_exports(cluster)}; ulimit -n 65536; ray start --head --port=6379 --object-manager-port=8076 "
        "--autoscaling-config=~/ray_bootstrap_config.yaml --dashboard-host=127.0.0.1",
    ]
    if "://" not in cluster.storage:
        source = f'"$HOME"/.dlsys/clusters/{cluster.name}/cluster.yaml'
        commands.append(f"install -D -m 600 {source} {folder}/cluster.yaml")
    commands.append(
        f"{_exports(cluster)} RAY_ADDRESS=127.0.0.1:6379; "
        f"nohup setsid sh -c '{forever}' {folder} >>{folder}/desk.log 2>&1 </dev/null & "
        # The terminal must not go before the queue has left it.
        "sleep 1"
    )
    return commands
