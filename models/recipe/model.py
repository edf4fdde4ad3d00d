"""The student, its control and the dense baselines: one encoder, other numbers.

Formulas of the mixture: DeepSeek-V3 (arXiv 2412.19437), equations 12 to 16: sigmoid affinities,
a bias that serves selection only, weights normalised over the selected experts, one shared expert;
balance without a loss: arXiv 2408.15664. Shapes: B sentences, L words, D width, E experts, H hidden.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional as F


@dataclasses.dataclass
class Config:
    """Sizes. experts = 0: dense feed-forward layers of width `hidden`."""

    intents: int
    tags: int
    labels: int
    buckets: int = 32768
    words: int = 32
    width: int = 128
    heads: int = 4
    layers: int = 2
    experts: int = 16
    hidden: int = 128
    shared: int = 128
    k_max: int = 4
    route: str = "sentence"  # or "word"
    dropout: float = 0.1


class SwiGlu(nn.Module):
    """w2(silu(w1 x) * w3 x), without biases."""

    def __init__(self, width, hidden):
        super().__init__()
        self.w1, self.w3 = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Mixture(nn.Module):
    """DeepSeekMoE layer. Routes each sentence (by the mean of its words) or each word."""

    def __init__(self, config):
        super().__init__()
        c = self.config = config
        self.shared = SwiGlu(c.width, c.shared)
        self.router = nn.Linear(c.width, c.experts, bias=False)
        self.w1 = nn.Parameter(torch.randn(c.experts, c.width, c.hidden) * c.width**-0.5)
        self.w3 = nn.Parameter(torch.randn(c.experts, c.width, c.hidden) * c.width**-0.5)
        self.w2 = nn.Parameter(torch.randn(c.experts, c.hidden, c.width) * c.hidden**-0.5)
        self.register_buffer("bias", torch.zeros(c.experts))
        self.register_buffer("load", torch.zeros(c.experts))

    def forward(self, x, lengths, k):
        """x: [T, D], the words of all sentences; lengths: [B]; k: [B] experts of each sentence."""
        rows = lengths.shape[0]
        owner = torch.repeat_interleave(torch.arange(rows), lengths)
        asked = pool(x, owner, lengths) if self.config.route == "sentence" else x
        k = k if self.config.route == "sentence" else k[owner]
        affinity = torch.sigmoid(self.router(asked))  # [R, E]
        chosen = torch.topk(affinity + self.bias, self.config.k_max, dim=-1).indices  # [R, k_max]
        kept = torch.arange(self.config.k_max)[None] < k[:, None]
        weight = affinity.gather(1, chosen) * kept
        weight = weight / weight.sum(-1, keepdim=True)
        if self.training:
            self.load += torch.bincount(chosen[kept], minlength=self.config.experts)
        if self.config.route == "sentence":
            chosen, weight, kept = chosen[owner], weight[owner], kept[owner]
        return self.shared(x) + self.experts(x, chosen, weight, kept)

    def experts(self, x, chosen, weight, kept):
        """The weighted sum of each word's experts: [T, D]."""
        out = torch.zeros_like(x)
        word, slot = kept.nonzero(as_tuple=True)
        which = chosen[word, slot]
        order = torch.argsort(which)
        word, slot, counts = word[order], slot[order], torch.bincount(which, minlength=self.config.experts)
        parts = []
        for expert, rows in enumerate(word.split(counts.tolist())):
            if len(rows):
                h = x[rows]
                parts.append((F.silu(h @ self.w1[expert]) * (h @ self.w3[expert])) @ self.w2[expert])
        return out.index_add(0, word, torch.cat(parts) * weight[word, slot][:, None])

    def balance(self, speed):
        """Moves the selection bias against the load since the last call."""
        self.bias += speed * torch.sign(self.load.mean() - self.load)
        self.bias -= self.bias.mean()
        self.load.zero_()


class Dense(SwiGlu):
    """A feed-forward layer with a mixture's signature."""

    def forward(self, x, lengths, k):
        return super().forward(x)


class Shift(nn.Module):
    """x + before * (the word before) + after * (the word after), for each channel."""

    def __init__(self, width):
        super().__init__()
        self.before, self.after = nn.Parameter(torch.full((width,), 0.1)), nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x):
        """x: [B, L, D]; what stands outside the sentence is 0."""
        return x + self.before * F.pad(x, (0, 0, 1, 0))[:, :-1] + self.after * F.pad(x, (0, 0, 0, 1))[:, 1:]


class Block(nn.Module):
    """Neighbours, attention over the sentence, then a mixture or a dense layer; norms before the two."""

    def __init__(self, config):
        super().__init__()
        c = self.config = config
        self.norm1, self.norm2 = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.shift = Shift(c.width)
        self.qkv = nn.Linear(c.width, 3 * c.width)
        self.out = nn.Linear(c.width, c.width)
        self.ffn = Mixture(c) if c.experts else Dense(c.width, c.hidden)
        self.dropout = nn.Dropout(c.dropout)

    def attend(self, x, mask):
        """x: [B, L, D]; mask: [B, L], True for words."""
        rows, length, width = x.shape
        x = self.shift(x) * mask[..., None]
        q, k, v = self.qkv(self.norm1(x)).view(rows, length, 3, self.config.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        return x + self.dropout(self.out(y.transpose(1, 2).reshape(rows, length, width)))

    def feed(self, x, lengths, k):
        """x: [T, D]."""
        return x + self.dropout(self.ffn(self.norm2(x), lengths, k))


class Encoder(nn.Module):
    """Hashed n-grams to intent, tag and (in training) corpus-label logits."""

    def __init__(self, config):
        super().__init__()
        c = self.config = config
        self.embedding = nn.EmbeddingBag(c.buckets, c.width, mode="sum", padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.position = nn.Parameter(torch.randn(c.words, c.width) * 0.02)
        self.norm0, self.norm = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.intent = nn.Linear(2 * c.width, c.intents)
        self.tag = nn.Linear(c.width, c.tags)
        self.label = nn.Linear(2 * c.width, c.labels)
        self.dropout = nn.Dropout(c.dropout)
        self.allocator = Allocator(c)

    def forward(self, grams, mask, k, allocate=None):
        """grams: [T, ngrams] of the words that `mask` [B, L] marks; k: [B].

        Returns intent [B, intents], tags [T, tags], labels [B, labels], the allocator's input [B, D].
        `allocate`: a function of that input that gives k instead.
        """
        lengths = mask.sum(1)
        owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        words = self.norm0(self.embedding(grams))
        x = torch.zeros(*mask.shape, self.config.width)
        x[mask] = words
        x = (x + self.position[: mask.shape[1]]) * mask[..., None]
        seen = None
        for block in self.blocks:
            x = block.attend(x, mask)
            flat = x[mask]
            if seen is None:
                seen = pool(block.norm2(flat), owner, lengths)
                k = k if allocate is None else allocate(seen)
            x = torch.zeros_like(x).masked_scatter(mask[..., None], block.feed(flat, lengths, k))
        flat = self.norm(x[mask])
        top = torch.full((len(lengths), self.config.width), -1e9).scatter_reduce(0, owner[:, None].expand_as(flat), flat, "amax")
        sentence = self.dropout(torch.cat([pool(flat, owner, lengths), top], -1))
        return self.intent(sentence), self.tag(self.dropout(flat)), self.label(sentence), seen


class Allocator(nn.Module):
    """How many experts a sentence gets: logits over k = 1..k_max from its pooled words and the budget."""

    def __init__(self, config):
        super().__init__()
        self.hidden = nn.Linear(config.width + 1, 16)
        self.out = nn.Linear(16, config.k_max)

    def forward(self, seen, budget):
        """seen: [B, D]; budget: [B] in 0..1. Returns [B, k_max]."""
        return self.out(torch.relu(self.hidden(torch.cat([seen, budget[:, None]], -1))))


def pool(x, owner, lengths):
    """Mean of the words of each sentence: [T, D] -> [B, D]."""
    return torch.zeros(len(lengths), x.shape[1]).index_add(0, owner, x) / lengths[:, None]
