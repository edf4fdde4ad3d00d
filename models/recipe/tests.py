#!/usr/bin/env python3
"""Tests of the recipe's parts that need no data: `python tests.py`."""

import random
import unittest

import numpy as np
import torch

import decode
import features
import graph
import model
import noise
import numerals
import prepare
import sampler
import settings


class Features(unittest.TestCase):
    def test_hash_is_fnv1a(self):
        for text, value in (("", 0x811C9DC5), ("a", 0xE40C292C), ("foobar", 0xBF9CF968)):
            self.assertEqual(features.fnv1a32(text.encode()), value)

    def test_words(self):
        found = [w for w, _, _ in features.words("Set Tom\u2019s lamp to 21.5°, 50% -- don't!")]
        self.assertEqual(found, ["set", "tom's", "lamp", "to", "21.5", "°", "50", "%", "don't"])

    def test_grams_begin_with_the_word(self):
        self.assertEqual(features.Features().grams("ab"), ["<ab>", "<a", "ab", "b>", "<ab", "ab>"])


class Sampling(unittest.TestCase):
    def test_tags_follow_the_slots(self):
        words = prepare.tagged_words([("dim the ", None), ("living room", "area"), (" to ", None), ("50", "brightness"), ("%", None)])
        self.assertEqual(words, [["dim", "O"], ["the", "O"], ["living", "B-area"], ["room", "I-area"], ["to", "O"], ["50", "B-brightness"], ["%", "O"]])

    def test_every_sample_has_known_tags(self):
        source = sampler.Sampler("en", random.Random(1))
        makers = noise.Noise(settings.HERE / "en", random.Random(2))
        for _ in range(2000):
            intent, chunks, _ = source.sample()
            for _, tag in makers.any(prepare.tagged_words(chunks)):
                self.assertIn(tag, settings.TAGS, (intent, chunks))


class Decoding(unittest.TestCase):
    def test_numbers_in_words(self):
        for number in (0, 7, 15, 42, 100, 115, 999, 2700):
            self.assertEqual(decode.number(numerals.spell(number)), number)
        self.assertEqual(decode.number("21.5"), 21.5)
        self.assertEqual(decode.number("twenty one point five"), 21.5)
        self.assertEqual(decode.number("fourty"), 40)

    def test_neighbouring_spans_may_be_one_name(self):
        home = {"entities": [{"name": "Bedroom Lamp", "domain": "light"}], "areas": [{"name": "Bedroom"}]}
        tags = ["O", "O", "B-area", "B-domain"]
        self.assertEqual(decode.slots("turn on bedroom lamp", "HassTurnOn", tags, home), {"name": "Bedroom Lamp"})


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
