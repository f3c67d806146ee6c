"""`kind: cluster` — machines, and how to get them. The provider decides which keys a file has.

The first group of `nodes` is the head: one machine that runs Ray's control plane and the queue of
jobs, and that trains like the others as far as it has CPUs or GPUs to give.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from dlsys.spec.section import (
    Bool,
    Count,
    Name,
    NonNegative,
    NonNegativeInt,
    Positive,
    Section,
    Text,
    show,
)

# Whole numbers: what `ray start` takes.
Cpus = Annotated[NonNegativeInt, Field(le=4096)]
Gpus = Annotated[NonNegativeInt, Field(le=64)]
Port = Annotated[Count, Field(le=65_535)]


def _without_control_characters(value: str) -> str:
    if not value.isprintable():
        raise ValueError(f"{show(value)} has a line break or another control character")
    return value


# Goes into files of other systems, a line each.
_Printable = AfterValidator(_without_control_characters)
Line = Annotated[Text, Field(min_length=1), _Printable]
# An argument of ssh, which would take one that starts with '-' for an option.
Address = Annotated[Text, Field(pattern=r"^[^\s-]\S*$", examples=["lab-1", "10.0.0.4"]), _Printable]
User = Annotated[Text, Field(pattern=r"^[^\s-]\S*$", examples=["ubuntu"]), _Printable]
SbatchOption = Annotated[Text, Field(pattern="^--?[A-Za-z]", examples=["--constraint=a100"]), _Printable]
SlurmTime = Annotated[
    Text,
    Field(
        pattern=r"^[0-9]{1,9}(-[0-9]{1,2}(:[0-9]{2}){0,2}|(:[0-9]{2}){0,2})$",
        examples=["4:00:00", "1-12:00:00"],
    ),
]
SlurmMemory = Annotated[Text, Field(pattern="^[0-9]{1,18}[KMGT]?$", examples=["64G"])]
PodMemory = Annotated[
    Text, Field(pattern=r"^[0-9]{1,18}(\.[0-9]{1,9})?([KMGTP]i|[kMGTP])?$", examples=["8Gi"])
]


class Node(Section):
    """Machines of one kind."""

    name: Name
    """What the group is called in listings; Ray sees it as a node's label `dlsys/group`."""
    price: NonNegative | None = None
    """What one of these machines costs an hour, in the file's `currency`."""


class LocalNode(Node):
    """Ray nodes on this machine, each with a raylet of its own."""

    cpus: Cpus
    """CPUs that the node says it has."""
    gpus: Gpus = 0
    """GPUs that the node says it has."""
    count: Count = 1
    """How many of them."""


class Host(Node):
    """Machines that exist already."""

    hosts: Annotated[tuple[Address, ...], Field(min_length=1)]
    """Their addresses, as ssh takes them."""
    cpus: Cpus | None = None
    """CPUs of each; by default all it has."""
    gpus: Gpus | None = None
    """GPUs of each; by default all it has."""


class Machine(Node):
    """Machines that a cloud lends."""

    machine: Line
    """The cloud's name of the machine type: `m5.xlarge`, `n2-standard-4`, `Standard_D4s_v5`."""
    cpus: Cpus | None = None
    """CPUs that Ray may use of each; by default all it has."""
    gpus: Gpus | None = None
    """GPUs that Ray may use of each; by default all it has."""
    count: NonNegativeInt = 1
    """How many there are from the start, and at least."""
    max: NonNegativeInt | None = None
    """How many the autoscaler may take; by default `count`."""
    spot: Bool = False
    """Takes spare capacity, which is cheaper and may be taken away at any time."""
    disk: Count | None = None
    """GB of the boot disk."""


class Pod(Node):
    """Pods of one kind."""

    cpus: Positive
    """CPUs of each pod."""
    memory: PodMemory
    """Memory of each pod, as Kubernetes writes it."""
    gpus: NonNegativeInt = 0
    """GPUs of each pod (`nvidia.com/gpu`)."""
    count: NonNegativeInt = 1
    """How many there are from the start, and at least."""
    max: NonNegativeInt | None = None
    """How many the autoscaler may take; by default `count`."""
    spot: Bool = False
    """Tolerates spot and preemptible nodes."""
    selector: dict[Line, Line] = Field(default_factory=dict)
    """Labels that a pod's node must have."""


class Allocation(Node):
    """Nodes of a Slurm allocation."""

    count: Count = 1
    """How many."""
    cpus: Count
    """CPUs of each."""
    gpus: NonNegativeInt = 0
    """GPUs of each (`--gpus-per-node`)."""
    memory: SlurmMemory | None = None
    """Memory of each, as Slurm writes it; by default Slurm's own."""


class Cluster(Section):
    """What clusters of every provider have."""

    kind: Literal["cluster"]
    """What sort of file this is."""
    name: Name
    """What the cluster is called; one of this name runs at a time."""
    provider: str
    """Who gives the machines."""
    nodes: tuple[Any, ...]
    """Groups of machines; the first is the head, and has one."""
    storage: Line | None = None
    """Where runs are kept: a folder that all nodes see at the same path, or the address of an object store
    (`s3://bucket/folder`); by default, on this machine alone, DLSYS_HOME or `.dlsys`."""
    currency: Line = "USD"
    """What prices are in."""
    max_package: Count = 100
    """MB of a job's working folder, packed; a larger one is refused."""


class Local(Cluster):
    """Several Ray nodes on this machine: separate raylets, with own resources, ports and folders."""

    provider: Literal["local"]
    """Who gives the machines."""
    nodes: Annotated[tuple[LocalNode, ...], Field(min_length=1)]
    """Groups of nodes; the first is the head, and has one."""
    head_state: Literal["memory", "disk"] = "disk"
    """Where Ray's head keeps the cluster's state: on `disk`, actors outlive a killed control plane."""


class Ssh(Cluster):
    """Machines that one already has, reached by ssh; dlsys and its Python must be on each."""

    provider: Literal["ssh"]
    """Who gives the machines."""
    nodes: Annotated[tuple[Host, ...], Field(min_length=1)]
    """Groups of machines; the first is the head, and has one host."""
    user: User | None = None
    """Who logs in; by default as ssh is set up."""
    key: Line | None = None
    """The private key's file; by default as ssh is set up."""
    ssh_port: Port | None = None
    """The port of the ssh servers; by default as ssh is set up."""
    python: Line = "python3"
    """The Python on those machines that has dlsys."""
    port: Port = 6379
    """Where Ray's head listens."""
    storage: Line
    """Where runs are kept: a folder that all hosts see at the same path."""


def node_name(host: str) -> str:
    """What an ssh cluster calls the Ray node of a host, in letters that Ray's labels and file names have."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", host).strip("._-")


class Cloud(Cluster):
    """Machines of AWS, Google Cloud or Azure, by Ray's cluster launcher."""

    provider: Literal["aws", "gcp", "azure"]
    """Who gives the machines."""
    nodes: Annotated[tuple[Machine, ...], Field(min_length=1)]
    """Groups of machines; the first is the head, and has one."""
    region: Line
    """Where: `us-west-2`, `us-central1`, `westeurope`."""
    zone: Line | None = None
    """The availability zone; Google Cloud asks for one."""
    project: Line | None = None
    """Google Cloud's project; Azure's resource group."""
    image: Line | None = None
    """The machine image, as the cloud names it; by default Ray's own choice."""
    user: User = "ubuntu"
    """Who logs in."""
    setup: tuple[Line, ...] = ("pip install dlsys",)
    """Commands that make a fresh machine ready, in order."""
    idle_minutes: Count = 5
    """A machine beyond `count` goes back after this time without work."""
    storage: Line
    """Where runs are kept: a folder that all nodes see at the same path, or the address of an object store
    (`s3://bucket/folder`)."""


class KubeRay(Cluster):
    """Pods on Kubernetes, by the KubeRay operator."""

    provider: Literal["kuberay"]
    """Who gives the machines."""
    nodes: Annotated[tuple[Pod, ...], Field(min_length=1)]
    """Groups of pods; the first is the head, and has one."""
    namespace: Name = "default"
    """The Kubernetes namespace."""
    context: Line | None = None
    """The context of kubectl's configuration; by default the current one."""
    image: Line
    """The container image: it has dlsys, and the Ray version that dlsys is used with."""
    claim: Name | None = None
    """A PersistentVolumeClaim that every pod mounts at `storage` (ReadWriteMany)."""
    service_account: Name | None = None
    """The pods' service account; by default the namespace's."""
    idle_minutes: Count = 5
    """A pod beyond `count` goes back after this time without work."""
    storage: Line
    """Where runs are kept: the folder at which `claim` is mounted, or the address of an object store
    (`s3://bucket/folder`)."""


class Slurm(Cluster):
    """An allocation of Slurm's, in which `ray symmetric-run` starts a Ray node on each machine."""

    provider: Literal["slurm"]
    """Who gives the machines."""
    nodes: Annotated[tuple[Allocation, ...], Field(min_length=1, max_length=1)]
    """One group of equal machines; the first of them is also the head."""
    time: SlurmTime
    """How long the allocation lasts, as Slurm writes it: `4:00:00` is four hours, `4:00` four minutes,
    `1-12:00:00` a day and a half."""
    partition: Line | None = None
    """The partition; by default Slurm's own."""
    account: Line | None = None
    """Who pays."""
    options: tuple[SbatchOption, ...] = ()
    """More options of sbatch; they outrank what the other keys say."""
    setup: tuple[Line, ...] = ()
    """Lines of shell that put dlsys's Python and Ray on the path: `module load python`. They run on the first
    machine; all others get its environment."""
    port: Port = 6379
    """Where Ray's head listens."""
    storage: Line
    """Where runs are kept: a folder that all nodes, and the machine that asks for them, see at the same
    path."""


PROVIDERS: dict[str, type[Cluster]] = {
    "local": Local,
    "ssh": Ssh,
    "aws": Cloud,
    "gcp": Cloud,
    "azure": Cloud,
    "kuberay": KubeRay,
    "slurm": Slurm,
}
