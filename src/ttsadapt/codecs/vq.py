"""A codebook that is learnt as the moving average of what chose it (van den Oord et al. 2017, appendix A.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttsadapt.codecs.kmeans import nearest

NEGLECTED = 0.05
"""of the average use: a codeword that is chosen less often starts again at a latent of the batch"""


class VectorQuantiser(nn.Module):
    """Latents -> the nearest of `codewords` vectors, gradients straight through."""

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, codewords: int, width: int, decay: float = 0.97) -> None:
        super().__init__()
        self.codewords, self.decay = codewords, decay
        self.register_buffer("codebook", torch.randn(codewords, width))
        self.register_buffer("counts", torch.zeros(codewords), persistent=False)
        self.register_buffer("sums", torch.zeros(codewords, width), persistent=False)

    def codes(self, latent: Tensor) -> Tensor:
        """(N, D) -> (N,)"""
        return nearest(latent, self.codebook)

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, D) -> the same quantised, and the commitment loss ()."""
        flat = latent.flatten(0, 1)
        index = self.codes(flat.detach())
        vectors = self.codebook[index]
        if self.training:
            self._follow(flat.detach(), index)
        return latent + (vectors.view_as(latent) - latent).detach(), F.mse_loss(flat, vectors)

    @torch.no_grad()
    def start(self, latent: Tensor) -> None:
        """Codewords at latents (N, D) of the data."""
        self.codebook.copy_(latent[torch.randint(len(latent), (self.codewords,))])
        self.sums.copy_(self.codebook)
        self.counts.fill_(1.0)

    @torch.no_grad()
    def _follow(self, latent: Tensor, index: Tensor) -> None:
        share = len(latent) / self.codewords
        self.counts.lerp_(index.bincount(minlength=self.codewords).float(), 1 - self.decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, index, latent), 1 - self.decay)
        fresh = latent[torch.randint(len(latent), (self.codewords,))]
        alone = (self.counts < NEGLECTED * share)[:, None]
        self.sums.copy_(torch.where(alone, fresh * share, self.sums))
        self.counts.masked_fill_(alone[:, 0], share)
        self.codebook.copy_(self.sums / self.counts[:, None])
