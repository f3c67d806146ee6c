"""What `dlsys/External-v0` is made with: a simulator that is a program of its own, reached over TCP."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from dlsys.spec.explain import explain
from dlsys.spec.rules import Found
from dlsys.spec.section import Seconds, Section, Text, show

EXTERNAL = "dlsys/External-v0"
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:\[\]/@]+)):([0-9]{1,5})")


def host_and_port(address: str) -> tuple[str, int]:
    """Of `host:port`, or of `[IPv6]:port`.

    Raises:
        ValueError: it is neither.
    """
    found = _ADDRESS.fullmatch(address)
    if not found or not 0 < int(found[3]) < 2**16:
        raise ValueError(f"must be host:port, or [host]:port with an IPv6 address, got {show(address)}")
    return found[1] or found[2], int(found[3])


def _address(text: str) -> str:
    host_and_port(text)
    return text


class External(Section):
    """The options of `dlsys/External-v0`."""

    address: Annotated[Text, AfterValidator(_address)] | None = None
    """`host:port` of a simulator that listens: each environment is a connection of its own."""
    command: tuple[Text, ...] = ()
    """A program and its arguments: each environment starts it, and it connects to the address in its variable
    DLSYS_SIMULATOR."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What the simulator is told at first, such as a scene."""
    token_file: Text | None = None
    """A file with a secret that is shown to who listens at `address`."""
    timeout: Seconds = 60.0
    """How long an answer may take."""
    start_timeout: Seconds = 60.0
    """How long it may take until there is a connection and the simulator has told its spaces."""


def wrong_options(options: dict[str, Any]) -> Found:
    """What is wrong with them, as (path in the options, sentence)."""
    try:
        told = External.model_validate(options)
    except ValidationError as error:
        yield from explain(error, External, owner=EXTERNAL)
        return
    if (told.address is None) == (not told.command):
        how = "say one of them" if told.command else "one of them is required"
        yield (), f"address (a simulator that listens) or command (one to be started): {how}"
    if told.token_file and told.command:
        yield ("token_file",), "is shown to who listens at address; a command is given a token of its own"
