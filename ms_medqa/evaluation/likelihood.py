"""How likely a model finds texts that are known: teacher forcing, a beginning that several share computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from mindspore import Tensor

from ms_medqa.backend.graph_memory import free_graphs
from ms_medqa.backend.interrupt import check_interrupt
from ms_medqa.evaluation.trees import Flat, Score, Tree, packs
from ms_medqa.generation.reading import bucket, piece_width
from ms_medqa.generation.weights import Snapshot, snapshot, unchanged
from ms_medqa.models.cache import CachedDecoder
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.prompt_reader import PromptReader

# Tokens of one pass. Attention is over the square of them, although most pairs are of different texts: at 512 that is
# 6 % of a 0.5B model's multiplications.
WIDTH = 512
SMALLEST_WIDTH = 64
# Texts that need more tokens are read in pieces, for the sake of memory.
LONGEST = 1024
# Logits at once (128 MB in float32): memory does not grow with the vocabulary.
MAX_LOGITS = 2**25
MOST_TARGETS, FEWEST_TARGETS = 512, 32


class Scorer:
    """Scores trees with one model. What it compiles serves all lengths, and other weights in the same place."""

    def __init__(self, model: CausalLM) -> None:
        self._model = model
        self._reader = PromptReader(model)
        self._weights: Snapshot | None = None
        most = max(FEWEST_TARGETS, min(MOST_TARGETS, MAX_LOGITS // model.config.vocab_size))
        self._most_targets = 1 << (most.bit_length() - 1)
        self._decoder: CachedDecoder | None = None
        # With "dynamic" scaling a key's angle depends on the length of the whole text, so branches share nothing.
        self._may_share = model.config.rope_scaling.kind != "dynamic"

    def score(self, trees: Sequence[Tree]) -> Iterator[tuple[int, list[Score]]]:
        """Scores of trunk and branches of each tree, with its number, in the order in which they are there.

        Raises:
            KeyboardInterrupt: Ctrl-C, where `hold_interrupt` lets it wait.
        """
        if self._weights is not None and not unchanged(self._model, self._weights):
            self.close()
            self._reader, self._decoder, self._weights = PromptReader(self._model), None, None
        for pack in packs([len(tree) for tree in trees], WIDTH):
            check_interrupt()
            some = [trees[number] for number in pack]
            scores = self._pack(some) if len(pack) > 1 else [self._alone(some[0])]
            # The first pass may have moved them to the device.
            self._weights = self._weights or snapshot(self._model)
            yield from zip(pack, scores, strict=True)

    def close(self) -> None:
        """Give back the memory of graphs."""
        for cell in (self._reader, *self._reader.makes, *([self._decoder] if self._decoder is not None else [])):
            free_graphs(cell)

    def _alone(self, tree: Tree) -> list[Score]:
        if tree.branches and not self._may_share:
            return self._apart(tree)
        if len(tree) > LONGEST >= 2 * tree.longest:
            return self._in_parts(tree)
        return self._in_pieces(tree) if len(tree) > LONGEST else self._pack([tree])[0]

    def _in_parts(self, tree: Tree) -> list[Score]:
        """Many branches, as of many classes, some at a time, with the trunk before them."""
        most, found = LONGEST - len(tree.trunk), list[Score]()
        part, used = list[Sequence[int]](), 0
        for branch in (*tree.branches, None):
            if part and (branch is None or used + len(branch) > most):
                found += self._alone(Tree(tree.trunk, part, () if found else tree.targets))[bool(found) :]
                part, used = [], 0
            if branch is not None:
                part.append(branch)
                used += len(branch)
        return found

    def _apart(self, tree: Tree) -> list[Score]:
        """Each branch with the trunk before it."""
        scores = self._alone(Tree(tree.trunk, targets=tree.targets))
        start = len(tree.trunk)
        for branch in tree.branches:
            whole = Tree([*tree.trunk, *branch], targets=range(start, start + len(branch)))
            scores += self._alone(whole)
        return scores

    def _pack(self, trees: Sequence[Tree]) -> list[list[Score]]:
        """Scores of trees in one pass."""
        if not self._may_share and any(tree.branches for tree in trees):
            return [self._alone(tree) for tree in trees]
        flat = Flat.of(trees, bucket(sum(map(len, trees)), SMALLEST_WIDTH))
        around = self._reader.begin_trees(
            *map(Tensor, (flat.ids, flat.positions, flat.trees, flat.branches, flat.lengths))
        )
        x, _ = self._reader.layers(around, ())
        sizes = [1 + len(tree.branches) for tree in trees]
        scores = self._targets(x, flat.places, flat.labels, flat.groups, sum(sizes))
        ends = np.cumsum(sizes)
        return [scores[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    def _in_pieces(self, tree: Tree) -> list[Score]:
        """Scores of a tree that is too long for one pass: piece by piece over a cache."""
        length = min(bucket(tree.longest, LONGEST), self._model.config.position_limit)
        if self._decoder is None or self._decoder.length < length:
            if self._decoder is not None:
                free_graphs(self._decoder)
            self._decoder = CachedDecoder(self._reader, 1, length)
        scores = [Score()] * (1 + len(tree.branches))
        # Of each target the token before it predicts it.
        asked = [(place - 1, tree.trunk[place], 0) for place in tree.targets]
        last = len(tree.trunk) - 1
        asked += [(last, branch[0], number) for number, branch in enumerate(tree.branches, start=1)]
        self._pieces(self._decoder, tree.trunk, 0, tree.longest, asked, scores)
        for number, branch in enumerate(tree.branches, start=1):
            follow = [(last + place, token, number) for place, token in enumerate(branch[1:], start=1)]
            self._pieces(self._decoder, branch, last + 1, tree.longest, follow, scores)
        return scores

    def _pieces(
        self,
        decoder: CachedDecoder,
        tokens: Sequence[int],
        start: int,
        whole: int,
        asked: Sequence[tuple[int, int, int]],
        scores: list[Score],
    ) -> None:
        """Read tokens behind `start` others, and add to the scores of what is asked: (place, label, group)."""
        done = 0
        while done < len(tokens):
            check_interrupt()
            at = start + done
            width = piece_width(self._model, len(tokens) - done, at, decoder.length)
            piece = tokens[done : done + width]
            here = [(place - at, label, group) for place, label, group in asked if at <= place < at + len(piece)]
            x = decoder.states(piece, at, width, whole)
            if here:
                places, labels, groups = map(list, zip(*here, strict=True))
                found = self._targets(x, places, labels, groups, len(scores))
                scores[:] = [old + new for old, new in zip(scores, found, strict=True)]
            done += len(piece)

    def _targets(
        self, x: Tensor, places: Sequence[int], labels: Sequence[int], groups: Sequence[int], count: int
    ) -> list[Score]:
        """Scores of `count` groups of targets."""
        losses, hits = np.zeros(count), np.zeros(count, np.int64)
        for start in range(0, len(places), self._most_targets):
            end = min(start + self._most_targets, len(places))
            here, wanted = np.zeros((2, bucket(end - start, FEWEST_TARGETS)), np.int32)
            here[: end - start], wanted[: end - start] = places[start:end], labels[start:end]
            likely, best = self._reader.score(x, Tensor(here), Tensor(wanted))
            which = np.asarray(groups[start:end])
            # Summed in float64: a float32 sum of a large set loses its last digits.
            np.subtract.at(losses, which, likely.asnumpy()[: end - start].astype(np.float64))
            np.add.at(hits, which, (best.asnumpy() == wanted)[: end - start])
        tokens = np.bincount(np.asarray(groups, np.int64), minlength=count)
        return [Score(*each) for each in zip(losses.tolist(), hits.tolist(), tokens.tolist(), strict=True)]
