#!/usr/bin/env python3
"""Tests of the models: `python tests_torch.py`."""

import unittest

import numpy as np
import torch

import graph
import model


class Models(unittest.TestCase):
    def test_an_expert_of_weight_one_is_a_swiglu(self):
        torch.manual_seed(0)
        config = model.Config(3, 5, 7, width=32, hidden=32, shared=32, experts=4, k_max=2)
        layer, x = model.Mixture(config).eval(), torch.randn(6, 32)
        owner, lengths = torch.zeros(6, dtype=torch.long), torch.tensor([6])
        best = int((torch.sigmoid(layer.router(model.pool(x, owner, lengths))) + layer.bias).argmax())
        expert = (torch.nn.functional.silu(x @ layer.w1[best]) * (x @ layer.w3[best])) @ layer.w2[best]
        found = layer(x, lengths, torch.tensor([1]))
        torch.testing.assert_close(found, layer.shared(x) + expert)

    def test_quantization_is_within_half_a_step(self):
        w = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
        codes, scales = graph.quantize(w)
        back = ((codes.astype(np.float32) - 128).reshape(3, 2, 32) * scales[..., None]).reshape(3, 64)
        self.assertLessEqual(np.abs(back - w).max(), scales.max() / 2 + 1e-6)


if __name__ == "__main__":
    unittest.main()
