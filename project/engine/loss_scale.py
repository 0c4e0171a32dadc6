"""Dynamic loss scaling for fp16: the scale doubles after a run of good steps and halves after an overflow."""

from dataclasses import dataclass


@dataclass
class LossScale:
    """Follows the rule and the defaults of `torch.amp.GradScaler`, whose state is per device. Here a step is good if
    the global gradient norm is finite, which every rank knows alike."""

    scale: float = 2.0**16
    growth_interval: int = 2000
    good_steps: int = 0

    def update(self, finite: bool) -> None:
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.scale /= 2
        elif self.good_steps == self.growth_interval:
            self.scale, self.good_steps = self.scale * 2, 0

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale, self.good_steps = state["scale"], int(state["good_steps"])
