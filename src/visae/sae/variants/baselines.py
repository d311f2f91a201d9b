"""Dictionaries to compare SAEs with, fitted to a sample without a gradient step: PCA, k-means, NMF, random, neurons.

They are sparse autoencoders in all that comes after: linear encodings of which TopK keeps the k largest of each token,
unit decoder rows, the same files. So a baseline with the k of an SAE has its L0, and differs in its directions alone.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import normalize

from visae.errors import TrainingError
from visae.sae.variants.sparse import weighted_rows
from visae.sae.variants.topk import TopK
from visae.sae.variants.variant import Weights, checked_k

_CHUNK = 8192


class Baseline(TopK):
    """TopK over encodings that a subclass finds."""

    @classmethod
    def from_settings(cls, settings: Any, width: int, d_model: int) -> Self:
        """Baseline to be fitted; raises ConfigError if k is larger than the number of latents."""
        return cls(checked_k(settings.k, width))

    def fit(self, weights: Weights, inputs: Tensor, settings: Any, seed: int) -> None:
        """Set the weights, in place, from a sample of normalized inputs (n, d_model).

        Codes are in whatever unit the encodings are; one factor for all of them is then chosen so that the
        reconstruction of the sample has the least squared error.
        """
        encoder, bias = self.encodings(inputs, len(weights.encoder), settings, seed)
        weights.encoder.copy_(encoder)
        weights.encoder_bias.copy_(torch.as_tensor(bias))
        weights.decoder.copy_(normalize(encoder))
        factor = self._best_factor(weights, inputs)
        weights.encoder.mul_(factor)
        weights.encoder_bias.mul_(factor)

    def encodings(self, inputs: Tensor, width: int, settings: Any, seed: int) -> tuple[Tensor, Tensor | float]:
        """Encoder rows (width, d_model), along which the decoder rows will be, and their biases (width,) or one."""
        raise NotImplementedError

    def _best_factor(self, weights: Weights, inputs: Tensor) -> float:
        """What all codes are multiplied with: <inputs, reconstruction> / <reconstruction, reconstruction>."""
        above, below = 0.0, 0.0
        for part in inputs.split(_CHUNK):
            codes = self.sparse(part, weights.encoder, weights.encoder_bias)
            rows = weighted_rows(weights.decoder, codes.latents, codes.values, codes.offsets)
            above += float((rows * part).sum(dtype=torch.float64))
            below += float(rows.square().sum(dtype=torch.float64))
        # Where no code helps, units stay as they are: a code must not become negative.
        return above / below if above > 0 else 1.0


class Pca(Baseline):
    """Principal components, the largest variance first: latent i is component i, latent d_model + i its negative.

    Of a token, the k largest codes are then its k largest projections, whatever their sign.
    """

    name = "pca"

    def encodings(self, inputs: Tensor, width: int, settings: Any, seed: int) -> tuple[Tensor, float]:
        """Eigenvectors of the covariance, which is added up batch after batch, and their negatives."""
        covariance = torch.zeros(inputs.shape[1], inputs.shape[1], dtype=torch.float64)
        for part in inputs.split(_CHUNK):
            covariance.addmm_(part.double().T, part.double())
        components = torch.linalg.eigh(covariance).eigenvectors.T.flip(0).float()
        return torch.cat([components, -components]), 0.0


class Neurons(Baseline):
    """Raw neurons: latent i is how far dimension i is above its mean, latent d_model + i how far it is below."""

    name = "neurons"

    def encodings(self, inputs: Tensor, width: int, settings: Any, seed: int) -> tuple[Tensor, float]:
        """Unit vectors and their negatives."""
        unit = torch.eye(inputs.shape[1])
        return torch.cat([unit, -unit]), 0.0


class Random(Baseline):
    """Directions drawn evenly from the sphere."""

    name = "random"

    def encodings(self, inputs: Tensor, width: int, settings: Any, seed: int) -> tuple[Tensor, float]:
        """Unit rows."""
        generator = torch.Generator().manual_seed(seed)
        return normalize(torch.randn(width, inputs.shape[1], generator=generator)), 0.0


class KMeans(Baseline):
    """Clusters: a code is by how much a token is nearer to the cluster's mean than to that of all tokens.

    Nearer means half the difference of the squared distances. The largest code is the cluster to which k-means
    assigns the token.
    """

    name = "kmeans"

    def encodings(self, inputs: Tensor, width: int, settings: Any, seed: int) -> tuple[Tensor, Tensor]:
        """Means of clusters, and minus half their squared norms."""
        from sklearn.cluster import MiniBatchKMeans

        if len(inputs) < width:
            raise TrainingError(f"saes.*.expansion: {width} clusters of only {len(inputs)} tokens; lower it")
        # scikit-learn begins with members of the first batch.
        batch = max(settings.batch_size, width)
        found = MiniBatchKMeans(width, init="random", n_init=1, batch_size=batch, random_state=seed)
        for _ in range(settings.passes):
            for part in inputs.split(batch):
                found.partial_fit(part.numpy())
        means = torch.from_numpy(found.cluster_centers_).float()
        return means, means.square().sum(1) / -2


class Nmf(Baseline):
    """Non-negative factors of what is above and what is below the mean, as dimensions apart: (max(x, 0), max(-x, 0)).

    A latent's direction is its component's upper half minus the lower one. Its code is the projection on that: the
    factorization's own code of a token needs an optimization over all components, which no encoder row can give.
    """

    name = "nmf"

    def encodings(self, inputs: Tensor, width: int, settings: Any, seed: int) -> tuple[Tensor, float]:
        """Unit rows along the components."""
        from sklearn.decomposition import MiniBatchNMF

        found = MiniBatchNMF(width, init="random", batch_size=settings.batch_size, random_state=seed)
        for _ in range(settings.passes):
            for part in inputs.split(settings.batch_size):
                found.partial_fit(torch.cat([part.relu(), (-part).relu()], 1).numpy())
        upper, lower = torch.from_numpy(found.components_).float().chunk(2, 1)
        return normalize(upper - lower), 0.0


BASELINES: dict[str, type[Baseline]] = {kind.name: kind for kind in (Pca, KMeans, Nmf, Random, Neurons)}
