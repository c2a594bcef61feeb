"""Steps whose loss is not finite: the first one ends the run, or they are skipped."""

from zobench.zo.engine import Diverged

POLICIES = (None, "stop", "skip")
MOST_IN_A_ROW = 20  # skipped; the next one ends the run


class Skips:
    """Decides on the steps that could not be taken, and counts those that were skipped.

    policy: `skip`; anything else ends the run at the first.
    """

    def __init__(self, policy: str | None) -> None:
        self.allowed = policy == "skip"
        self.count = 0
        self.in_a_row = 0

    def skip(self, error: Diverged) -> None:
        """Count a step that raised; raises Diverged where the run must not go on."""
        if not self.allowed:
            raise error
        if self.in_a_row == MOST_IN_A_ROW:
            raise Diverged(
                f"{error}, and {MOST_IN_A_ROW} steps in a row before it were skipped for the same"
            )
        self.count += 1
        self.in_a_row += 1

    def taken(self) -> None:
        """A step went well."""
        self.in_a_row = 0

    def metrics(self) -> dict[str, float]:
        """Beside a line's training loss, which is the mean over the steps that were taken."""
        return {"train/skipped": self.count} if self.allowed else {}

    def result(self) -> dict[str, int]:
        """For result.json."""
        return {"skipped_steps": self.count} if self.allowed else {}

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count, self.in_a_row = state["count"], state["in_a_row"]
