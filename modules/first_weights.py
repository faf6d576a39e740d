"""How a new BERT begins, so that an hour on two cores teaches it something.

From noise alone a masked language model learns how frequent words are and then stands still for thousands of steps,
until a head finds out which positions are neighbours: of a masked word the model knows nothing but its place. So that
much is given to it, as weights that are trained like all others: positions begin as the sinusoids of "Attention Is All
You Need", for which a step to the side is a rotation, and queries and keys of the first block as that rotation. The
idea of giving attention the shape that training finds anyway is "Mimetic Initialization of Self-Attention Layers"
(Trockman & Kolter, arXiv:2305.09828). docs/pretraining.md has the losses with and without.
"""

from __future__ import annotations

import math

import numpy as np

from modules.bert import Bert

FASTEST, SLOWEST = 2.0, 0.01   # Radians from a position to the next: single steps differ, and places far apart too.
SHARPNESS = 4.0                # Of queries times keys: large enough that neighbours win over what words they are.


def deviation(width: int) -> float:
    """Standard deviation of new weights, (2 / (5 · width))^½ (Nguyen & Salazar, arXiv:1910.05895): BERT's 0.02 of a
    model 768 wide is too little for narrow ones."""
    return math.sqrt(2 / (5 * width))


def look_at_neighbours(bert: Bert) -> None:
    """Gives a new encoder positions that are sinusoids, and heads in its first block that look beside themselves.

    The first head looks at the next token, the second at the one before, the third at the next but one, and so on; all
    see more than that one, the nearer the better. Each has frequencies of its own.

    Args:
        bert: whose weights are new; positions, queries and keys change.
    """
    config = bert.config
    width, pairs = config.hidden_size, config.hidden_size // 2
    speeds = FASTEST * (SLOWEST / FASTEST) ** np.linspace(0, 1, pairs)  # [pairs], in radians a position
    angles = np.arange(config.max_position_embeddings)[:, np.newaxis] * speeds  # [positions, pairs]
    table = np.zeros((config.max_position_embeddings, width))
    table[:, :2 * pairs] = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    bert.embeddings.positions.assign(math.sqrt(2) * config.initializer_range * table)

    qkv, heads = bert.blocks[0].attention.qkv, config.num_attention_heads
    # np.array would ask the variable for a copy, which Keras's do not know of.
    kernel = np.asarray(qkv.kernel).reshape(width, 3, heads, -1).copy()  # [width, query key value, heads, head width]
    for head in range(heads):
        steps = (-1) ** head * (head // 2 + 1)
        for i, pair in enumerate(range(head, pairs, heads)[:kernel.shape[-1] // 2]):
            sin, cos, here = pair, pairs + pair, slice(2 * i, 2 * i + 2)
            turn, root = speeds[pair] * steps, math.sqrt(SHARPNESS)
            # sin(a + b) = sin a · cos b + cos a · sin b, and cos(a + b) = cos a · cos b - sin a · sin b.
            kernel[[sin, cos], 0, head, here] += root * np.array([[math.cos(turn), -math.sin(turn)],
                                                                  [math.sin(turn), math.cos(turn)]])
            kernel[[sin, cos], 1, head, here] += root * np.eye(2)
    qkv.kernel.assign(kernel.reshape(width, -1))
