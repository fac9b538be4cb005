from __future__ import annotations

import torch

from tests.faces import faces
from workers.training.face_augment import Augmentation, augment


def test_augmentation_repeats_itself_and_can_be_switched_off() -> None:
    grey = torch.from_numpy(faces(8)[:, None])

    def spoiled(how: Augmentation, px: int = 36) -> torch.Tensor:
        return augment(grey, px, how, torch.Generator().manual_seed(5))

    assert spoiled(Augmentation()).shape == (8, 1, 36, 36)
    torch.testing.assert_close(spoiled(Augmentation()), spoiled(Augmentation()), rtol=0, atol=0)
    none = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0)
    same = spoiled(none, 48)
    for face, result in zip(grey.float(), same, strict=True):  # as it was, or mirrored
        assert min((face - result).abs().max(), (face.flip(2) - result).abs().max()) < 0.1
