"""Words: what a reader of a report or a terminal may not know, in a sentence each, where it stands first."""

SIDES = (
    "One base with LoRAs, called shared: one quantized U-Net that takes the LoRAs as inputs. One graph per task, called"
    " per-graph: a quantized U-Net for each task, its LoRA merged into the weights, which is loaded at each switch of tasks."
)
RATIO = "Ratio: per-graph / shared; above 1 the shared graph takes less."
RESIDUAL = "Residual: what an image takes beyond its components."
FOUNDATION_ROM = "Foundation ROM: the bytes on the device of all files that a task runs but LoRAs."
TRUTH = "The truth is the picture that would be right. The float model itself paints another, so that figures against it are low."
