"""Ansible's stdout callback for playbooks: hands every event to `discovery_xp.deployment.play`.

It prints nothing: who runs the playbooks decides what a person sees.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase

from discovery_xp.deployment import play

DOCUMENTATION = """
name: follow_plays
type: stdout
short_description: hands every event to discovery_xp.deployment.play
description: Nothing is printed.
"""


class CallbackModule(CallbackBase):
    """A bridge from Ansible's events to the listener of the running playbook."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "follow_plays"

    def v2_playbook_on_play_start(self, started: Any) -> None:
        """A stage begins."""
        play.listener().on_play(started.get_name(), started.hosts)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """All hosts of the stage begin a task."""
        subject = str(task.args.get("name", ""))
        play.listener().on_task(task.get_name(), task.action, subject)

    def v2_runner_on_ok(self, result: Any) -> None:
        """A host has done it."""
        outcome = "changed" if result._result.get("changed") else "ok"
        play.listener().on_result(result._host.get_name(), outcome, result._result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """A host had nothing to do."""
        play.listener().on_result(result._host.get_name(), "skipped", {})

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A host could not."""
        outcome = "ignored" if ignore_errors else "failed"
        play.listener().on_result(result._host.get_name(), outcome, result._result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host did not answer over ssh."""
        play.listener().on_result(result._host.get_name(), "unreachable", result._result)
