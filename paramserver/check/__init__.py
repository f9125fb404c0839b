"""The audit of a run: does what its journals hold fit together, and did every answer have to be that one?

`check_run` reads the journals, light or full, and the checkpoints of a run folder, and changes nothing there.
Each shard is judged for itself by its auditor and by doing it all again (`shard`, `exact`), then all of them
together (`run`); `paramserver.audit` says which properties there are.
"""

from paramserver.check.findings import Coverage, Findings, Report
from paramserver.check.run import check_run
from paramserver.check.story import Story

__all__ = ["Coverage", "Findings", "Report", "Story", "check_run"]
