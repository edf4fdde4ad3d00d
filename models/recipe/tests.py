#!/usr/bin/env python3
"""Tests that need neither data nor PyTorch: `python tests.py`. tests/run runs them; tests_torch.py has the rest."""

import json
import random
import unittest

import numpy as np

import corpora
import decode
import features
import noise
import numerals
import prepare
import sampler
import settings
import shipped


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


class Labels(unittest.TestCase):
    def test_words_go_before_a_coarse_label(self):
        for label, text, intent in (
            ("audio_volume_up", "turn up the volume", "HassSetVolumeRelative"),
            ("audio_volume_up", "raise the volume to fifty five", "HassSetVolume"),
            ("audio_volume_down", "volume down by ten percent", "HassSetVolumeRelative"),
            ("play_music", "play hurt by johnny cash next", "HassMediaSearchAndPlay"),
            ("play_music", "song next please", "HassMediaNext"),
            ("datetime_query", "what time is it in london", "out_of_scope"),
        ):
            self.assertEqual(corpora.hwu_intent(label, text), intent, text)


class Shipped(unittest.TestCase):
    """models/intent in onnxruntime."""

    folder = settings.HERE.parent / "intent"

    def test_onnxruntime_gives_the_golden_answers(self):
        system = shipped.Bundle(self.folder)
        for case in json.loads((self.folder / "golden.json").read_text()):
            ids = prepare.FEATURES.ids(case["text"])
            self.assertEqual(ids, case["ids"], case["text"])
            intent, confidence, logits, tags, k = system.answer(ids)
            found = (intent, [system.manifest["tags"][t] for t in tags], k)
            self.assertEqual(found, (case["intent"], case["tags"], case["k"]), case["text"])
            self.assertLessEqual(abs(confidence - case["confidence"]), 0.02, case["text"])
            self.assertLessEqual(np.abs(logits - case["intent_logits"]).max(), 0.05, case["text"])

    def test_sentences_need_a_quarter_of_the_weights_at_most(self):
        weights = shipped.Weights(self.folder)
        self.assertLessEqual(weights.total, 8e6)
        # The bar is for the mean of real sentences (evaluate.py); this one is long.
        ids = prepare.FEATURES.ids("set the brightness of the kitchen main light to forty five percent")
        self.assertLessEqual(weights.touched(ids, 2), weights.total / 4)


if __name__ == "__main__":
    unittest.main()
