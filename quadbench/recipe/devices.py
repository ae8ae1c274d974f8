"""Devices: a recipe's `devices` -> the samplers and the precision that devices of one profile run instead of the recipe's."""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from quadbench.recipe.precision import Precision
from quadbench.recipe.tasks import Sampler, Task, TextToImageTask, fault_of_strength
from quadbench.spec import Name, Problem, Spec, near


class DeviceSettings(Spec):
    """The settings of devices of one profile, where they are not the recipe's. Encodings follow from them, for these devices."""

    samplers: dict[Name, Sampler] = Field(default_factory=dict)
    """These tasks, by name, have another sampler. The default is none: all have their own."""
    precision: Precision | None = None
    """The U-Net is quantized to these bits. The default is null: to those of the recipe."""

    def of(self, task: Task) -> Task:
        """Return a task as these devices run it."""
        return task.model_copy(update={"sampler": self.samplers.get(task.name, task.sampler)})


def misfits(devices: Mapping[str, DeviceSettings], tasks: Sequence[Task]) -> Iterator[Problem]:
    """Yield the samplers of tasks that the recipe lacks, and those that leave a task's strength no step."""
    named = {task.name: task for task in tasks}
    for profile, settings in devices.items():
        for name, sampler in settings.samplers.items():
            location, task = (profile, "samplers", name), named.get(name)
            if task is None:
                yield Problem(location=location, reason=f"no task '{name}'" + near(name, named))
            elif not isinstance(task, TextToImageTask) and (fault := fault_of_strength(task.strength, sampler)):
                yield Problem(location=location, reason=f"the task's strength does not fit: {fault}")
