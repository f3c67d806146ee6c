"""`notify` — who is told that a run, a sweep or a script has ended: alike for all kinds of file."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import field_validator, model_validator

from dlsys.spec.section import Section, Text

# As most webhooks have it in their path; a topic in words has shorter ones.
_TOKEN = re.compile(r"[A-Za-z0-9]{16,}")


class Notify(Section):
    """What happens once, when the run has ended: say one of these."""

    url: Text = ""
    """A webhook, http or https, that gets the JSON as a POST. An address that is a secret, as most are, is
    refused here, for files are written down: say `url_from`."""
    url_from: Text = ""
    """The environment variable that holds the address, such as `SLACK_URL`."""
    command: tuple[Text, ...] = ()
    """The words of a command, run in this file's folder, that gets the JSON on its standard input."""

    @field_validator("url")
    @classmethod
    def _is_public(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
        except ValueError:
            parts = urlsplit("")
        if not value:
            return value
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError("must be an address that begins with http:// or https://")
        # What it says must not be repeated.
        if "@" in parts.netloc or parts.query or _TOKEN.search(parts.path):
            raise ValueError(
                "looks like a secret: put the address into an environment variable, and say "
                "url_from: THE_VARIABLE"
            )
        return value

    @field_validator("url_from")
    @classmethod
    def _is_a_variable(cls, value: str) -> str:
        if value and not value.isidentifier():
            raise ValueError("must be the name of an environment variable, such as SLACK_URL")
        return value

    @model_validator(mode="after")
    def _is_one(self) -> Notify:
        if sum(map(bool, (self.url, self.url_from, self.command))) != 1:
            raise ValueError("must say one of url, url_from and command")
        return self
