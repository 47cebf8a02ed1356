"""The contrastive objectives as modules for training loops of one's own (arXiv 2107.01152).

For each of the M = 2N views of a batch, `s_pos` is the cosine similarity with the other view of its image, `s_j` those
with the K = M - 2 views of the other images, and t the temperature:

    d_j = (s_j - s_pos) / t      v = logsumexp_j d_j

InfoNCE is the mean of log(1 + exp v), FlatNCE the mean of exp(v - v'), where v' is v without gradient.
"""

import torch
from torch import Tensor


class _Contrast(torch.nn.Module):
    """What both objectives share: the temperature, and v of every view."""

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if not 0 < temperature < float("inf"):
            raise ValueError(f"the temperature is {temperature}; it has to be a number above 0")
        self.temperature = float(temperature)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"

    def log_xi(self, first_views: Tensor, second_views: Tensor) -> Tensor:
        """v of every view, `[2N]`; float32 for features of lower precision, under autocast too."""
        if first_views.dim() != 2 or first_views.shape != second_views.shape:
            shapes = f"{list(first_views.shape)} and {list(second_views.shape)}"
            raise ValueError(f"the features of the two views are {shapes}; both have to be [images, dimensions]")
        images = len(first_views)
        if images < 2:
            raise ValueError("a batch of one image has no negatives; it has to have at least 2")
        with torch.autocast(first_views.device.type, enabled=False):
            views = torch.cat([first_views, second_views])
            if views.dtype in (torch.float16, torch.bfloat16):
                views = views.float()
            unit = torch.nn.functional.normalize(views, dim=1)
            logits = unit @ unit.T / self.temperature  # [2N, 2N]
            index = torch.arange(2 * images, device=logits.device)
            partner = index.roll(images)
            positive = logits[index, partner]  # [2N]
            no_negatives = torch.zeros_like(logits, dtype=torch.bool)
            no_negatives[index, index] = True
            no_negatives[index, partner] = True
            return logits.masked_fill(no_negatives, float("-inf")).logsumexp(1) - positive


class InfoNCE(_Contrast):
    """InfoNCE (NT-Xent), as SimCLR trains.

        loss = InfoNCE(temperature=0.1)(first_views, second_views)
        loss.backward()

    Both arguments are projected features `[N, D]`, row i of each from the same image; they need not be of unit length.
    The result is the mean over all 2N views, a scalar. Memory grows with the square of N.

    Errors: ValueError where the shapes differ or N is below 2.
    """

    def forward(self, first_views: Tensor, second_views: Tensor) -> Tensor:
        return torch.nn.functional.softplus(self.log_xi(first_views, second_views)).mean()


class FlatNCE(_Contrast):
    """FlatNCE, the self-normalised objective; used as `InfoNCE` is.

    FlatNCE's own value is 1 whatever the features are. So the result has FlatNCE's gradient, and as its value that of
    InfoNCE on the same batch: a number that falls as training goes on, and the loss that the program reports.
    """

    def forward(self, first_views: Tensor, second_views: Tensor) -> Tensor:
        log_xi = self.log_xi(first_views, second_views)
        fixed = log_xi.detach()
        # exp(v - v') has the gradient of v.
        return torch.nn.functional.softplus(fixed).mean() + (log_xi - fixed).mean()
