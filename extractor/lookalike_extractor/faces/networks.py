"""The three networks of MTCNN (Zhang et al., arXiv:1604.02878, figure 2), each finer than the one before.

Pixels are float32 [n, 3, h, w], (value - 127.5) / 128. Each answers, for every window it sees, the
probability [n, ...] of a face and the shift [n, 4, ...] of the window's left, top, right and bottom edge, in
sides of the window. Layers have the names of facenet-pytorch's files (MIT), so that those load as they are.
"""

from __future__ import annotations

from torch import Tensor, nn


class Proposal(nn.Module):
    """Looks everywhere: windows of 12 pixels, one for every second pixel of [n, 3, h, w]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns probabilities [n, rows, columns] and shifts [n, 4, rows, columns]."""
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_1(x).softmax(dim=1)[:, 1], self.conv4_2(x)


class Refinement(nn.Module):
    """Throws out most of what was proposed: windows resized to [n, 3, 24, 24]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns probabilities [n] and shifts [n, 4]."""
        x = self.pool(self.prelu1(self.conv1(x)))
        x = self.prelu3(self.conv3(self.pool(self.prelu2(self.conv2(x)))))
        x = self.prelu4(self.dense4(_by_columns(x)))
        return self.dense5_1(x).softmax(dim=1)[:, 1], self.dense5_2(x)


class Output(nn.Module):
    """Has the last word, and finds the landmarks: windows resized to [n, 3, 48, 48]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns probabilities [n], shifts [n, 4] and landmarks [n, 5, 2] as (x, y) in sides of the window.

        Landmarks: the eye on the left of the picture, that on the right, the nose, the corners of the mouth.
        """
        x = self.pool(self.prelu1(self.conv1(x)))
        x = self.pool(self.prelu2(self.conv2(x)))
        x = self.prelu4(self.conv4(self.pool3(self.prelu3(self.conv3(x)))))
        x = self.prelu5(self.dense5(_by_columns(x)))
        landmarks = self.dense6_3(x).view(-1, 2, 5).transpose(1, 2)
        return self.dense6_1(x).softmax(dim=1)[:, 1], self.dense6_2(x), landmarks


class Detector(nn.Module):
    """The three networks together; faces.detection runs them."""

    def __init__(self) -> None:
        super().__init__()
        self.proposal, self.refinement, self.output = Proposal(), Refinement(), Output()


def _by_columns(x: Tensor) -> Tensor:
    """[n, c, h, w] -> [n, w * h * c]: the weights were made where columns come first."""
    return x.permute(0, 3, 2, 1).flatten(1)
