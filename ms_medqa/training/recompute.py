"""Gradients with recomputed layers (Chen et al. 2016): these keep their input and are computed anew going backward.

MindSpore's own `Cell.recompute` says which operators to repeat, and leaves open when. The CPU's executor repeats them
at once and keeps both results: LoRA on 120 million parameters, 24 rows of 128 tokens, took 4.0 GB with it, 3.5 GB
without and 2.5 GB with what is here. Nor can a Cell do it in a `bprop` of its own, which must not use parameters. So
the layers are differentiated one by one, and each has to wait for the gradient that comes down to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_medqa.backend.ops import anew
from ms_medqa.training.loss import TokenLoss

_pick = ops.MultitypeFuncGraph("pick")


@_pick.register("Tuple", "Number", "Number")
def _pick_gradient(groups, group, place):  # type: ignore[no-untyped-def]
    return groups[group][place]


def recomputed_layers(wish: bool | int, layers: int) -> int:
    """How many of the first layers `train.recompute` means."""
    return layers if wish is True else min(int(wish), layers)


class RecomputedGradients(nn.Cell):
    """What `ms.value_and_grad(loss, None, weights)` gives, to the bit, with the first layers recomputed.

    Args:
        loss: of a model.
        weights: what is trained, each in the embedding, a layer, the last norm or the head.
        count: layers to recompute, at least 1.
    """

    def __init__(self, loss: TokenLoss, weights: Sequence[Parameter], count: int) -> None:
        super().__init__(auto_prefix=False)
        self.loss = loss
        self.decoder = loss.model.model
        self.layers = self.decoder.layers
        self.window = self.decoder.mask.of_layer
        self.count = count
        own = [self.layers[index].trainable_params() for index in range(count)]
        inside = {id(weight) for group in own for weight in group}
        rest = [weight for weight in weights if id(weight) not in inside]
        self.own = tuple(map(ParameterTuple, own))
        self.has_own = tuple(map(bool, own))
        self.rest = ParameterTuple(rest)
        # A trained embedding has a gradient from below the layers and, where the head is tied to it, one from above.
        embedding = self.decoder.embed_tokens.weight
        self.embedding = ParameterTuple([embedding])
        self.embedding_in_rest = next((place for place, weight in enumerate(rest) if weight is embedding), -1)
        groups = [*own, rest] if self.embedding_in_rest < 0 else [*own, rest, [embedding]]
        places = {id(w): (group, place) for group, members in enumerate(groups) for place, w in enumerate(members)}
        self.group, self.place = zip(*(places[id(weight)] for weight in weights), strict=True)
        self.with_weights = ops.GradOperation(get_all=True, get_by_list=True, sens_param=True)
        self.of_weights = ops.GradOperation(get_by_list=True, sens_param=True)
        self.of_inputs = ops.GradOperation(get_all=True, sens_param=True)
        self.of_rest = ms.value_and_grad(self._above, 0, self.rest if rest else None)
        self.map = ops.HyperMap()

    def construct(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        segment_ids: Tensor,
        label_places: Tensor,
        labels: Tensor,
        label_count: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss, and a gradient for each weight; arguments as of `TokenLoss`."""
        x = self.decoder.embed(input_ids)
        rope, masks = self.decoder.surroundings(position_ids, segment_ids)
        kept = ()
        for index in range(self.count):
            kept = (*kept, x)
            x = self.layers[index](x, rope, masks[self.window[index]])
        loss, dout, rest = self._loss_and_rest(x, rope, masks, label_places, labels, label_count)
        found = (rest,)
        for number in range(self.count):
            index = self.count - 1 - number
            dout, own = self._layer(index, anew(kept[index], dout), rope, masks[self.window[index]], dout)
            found = (own, *found)
        if self.embedding_in_rest >= 0:
            below = self.of_weights(self.decoder.embed, self.embedding)(input_ids, dout)
            found = (*found, (below[0] + rest[self.embedding_in_rest],))
        return loss, self.map(ops.partial(_pick, found), self.group, self.place)

    def _above(self, x, rope, masks, label_places, labels, label_count):  # type: ignore[no-untyped-def]
        hidden = self.decoder.through(x, rope, masks, self.count)
        return self.loss.of_hidden(hidden, label_places, labels, label_count)

    def _loss_and_rest(self, *inputs):  # type: ignore[no-untyped-def]
        loss, gradients = self.of_rest(*inputs)
        if len(self.rest) == 0:
            return loss, gradients, ()
        return loss, gradients[0], gradients[1]

    def _layer(self, index, x, rope, mask, dout):  # type: ignore[no-untyped-def]
        """Gradients to a layer's input and to its weights."""
        if self.has_own[index]:
            inputs, own = self.with_weights(self.layers[index], self.own[index])(x, rope, mask, dout)
            return inputs[0], own
        return self.of_inputs(self.layers[index])(x, rope, mask, dout)[0], ()
