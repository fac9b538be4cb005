"""FER+: the shipped face encoder on the validation pictures, under both protocols.

python -m bench.experiments.face --data DATA
"""

from __future__ import annotations

import numpy as np
import torch

from bench.experiments.common import Answered, arguments, main_file, row
from workers.training.face import judge_face
from workers.training.judged import Judged


def answered(judged: Judged) -> Answered:
    """One seed; every picture is a group of its own."""
    return Answered(judged.probabilities[None], judged.label, np.arange(len(judged.label)))


def main() -> None:
    given = arguments(__doc__)
    torch.set_num_threads(1)
    majority = judge_face(given.data / "ferplus" / "valid.npz")
    plurality = majority.also["plurality"]
    ours = answered(majority)
    shares = np.bincount(majority.label, minlength=len(majority.labels)) / len(majority.label)
    same = Answered(np.tile(shares, (1, len(ours.label), 1)), ours.label, ours.group)
    main_file(
        given.out / "ferplus.json",
        set="ferplus",
        title="FER+ faces, crowd labels",
        made_by="python -m bench.experiments.face --data DATA",
        protocol="The validation pictures, which chose the epoch; one training. Majority: one of the eight "
        "has more than half of the votes left after votes of one are set to zero. Plurality: more votes than "
        "any other class. There is no concat-MLP row: a picture is not a list of features.",
        metric="accuracy",
        rows=[
            row("main", "majority class", same),
            row("main", "face encoder, majority protocol", ours),
            row("main", "face encoder, plurality protocol", answered(plurality)),
        ],
        published=[
            {
                "name": "VGG13, crowd labels (Barsoum et al. 2016)",
                "accuracy": 0.8499,
                "differs": "test part, majority protocol",
            }
        ],
        shown={"face": ours},
        labels=majority.labels,
    )


if __name__ == "__main__":
    main()
