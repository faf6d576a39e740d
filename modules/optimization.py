"""The optimizer, its learning-rate schedule, and the arithmetic the device is fast at."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from modules.errors import TextrailError
from modules.hardware import FAST_BFLOAT16, cpu_flags


def learning_rate(step: tf.Tensor, peak: float, total_steps: int, warmup_steps: int, schedule: str, width: int = 1
                  ) -> tf.Tensor:
    """Linear warmup to `peak`, then decay to 0 at `total_steps` (BERT paper, appendix A.2).

    `inverse_sqrt` is that of "Attention Is All You Need" (section 5.3), which counts steps from 1 and knows no end:
    peak · width^-0.5 · min(step^-0.5, step · warmup_steps^-1.5). With `peak` 1 the largest rate is
    (width · warmup_steps)^-0.5, 0.0014 for 128 and 4000.

    Args:
        step: [...] number of the step about to be taken, from 0.
        peak: largest rate, reached at the last step of the warmup; of `inverse_sqrt` a factor.
        total_steps: steps of the whole training.
        warmup_steps: steps of the warmup; 0 begins at the peak.
        schedule: what follows the warmup: `linear`, `cosine`, `constant` or `inverse_sqrt`.
        width: the model's hidden size, which counts in `inverse_sqrt` alone.

    Returns:
        [...] float32 rate. Step 0 already learns: it takes 1/warmup_steps of the peak.
    """
    step = tf.cast(step, tf.float32)
    if schedule == "inverse_sqrt":
        return peak * width**-0.5 * tf.minimum(tf.math.rsqrt(step + 1), (step + 1) * max(warmup_steps, 1)**-1.5)
    warm = (step + 1) / max(warmup_steps, 1)
    past = tf.clip_by_value((step - warmup_steps) / max(total_steps - warmup_steps, 1), 0.0, 1.0)
    decay = {
        "linear": lambda: 1 - past,
        "cosine": lambda: 0.5 * (1 + tf.cos(math.pi * past)),
        "constant": lambda: tf.ones_like(past),
    }[schedule]()
    return peak * tf.where(step < warmup_steps, warm, decay)


class Schedule(NamedTuple):
    """The learning rate of a whole training.

    Attributes:
        peak: largest rate, or a factor.
        total_steps: steps of the whole training.
        warmup_steps: steps of the warmup.
        kind: `linear`, `cosine`, `constant` or `inverse_sqrt`.
        width: the model's hidden size.
    """

    peak: float
    total_steps: int
    warmup_steps: int
    kind: str
    width: int = 1

    @classmethod
    def of(cls, settings: dict[str, Any], total_steps: int, width: int = 1) -> Schedule:
        """That of the `training` section of the settings; its warmup is `warmup_steps`, or the share `warmup`."""
        warmup = settings["warmup_steps"] if "warmup_steps" in settings else int(settings["warmup"] * total_steps)
        return cls(settings["learning_rate"], total_steps, warmup, settings["schedule"], width)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """See `learning_rate`."""
        return learning_rate(step, self.peak, self.total_steps, self.warmup_steps, self.kind, self.width)


def decays(name: str) -> bool:
    """Whether AdamW's decay applies to a variable: to kernels and embeddings, not to biases and layer norms."""
    return not re.search(r"(bias|beta|gamma|norm)", name.lower())


class AdamW(tf.Module):
    """Adam with decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101) on TensorFlow's fused kernel; with a
    decay of 0 Adam itself (Kingma & Ba, arXiv:1412.6980).

    One fused pass a variable instead of a dozen elementwise ones: BERT's embedding matrix alone makes the difference
    felt on a CPU. Gradients are clipped by their global norm, and with float16 the loss is scaled and a step whose
    gradients overflowed is skipped.

    Args:
        variables: what is trained; gradients come in this order.
        names: their names, which tell biases and layer norms from kernels.
        weight_decay: share of the learning rate by which a decaying variable shrinks each step.
        clip_norm: largest global gradient norm, 0 for none.
        beta_1: share of the gradients' running mean that a step keeps.
        beta_2: the same of their running mean square.
        epsilon: added to the root of that.
        scale_loss: true for float16.
    """

    def __init__(self, variables: Sequence[tf.Variable], names: Sequence[str], *, weight_decay: float = 0.01,
                 clip_norm: float = 1.0, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-6,
                 scale_loss: bool = False):
        super().__init__()
        self.trained = list(variables)
        self.decay = [weight_decay if decays(name) else 0.0 for name in names]
        self.clip_norm, self.beta_1, self.beta_2, self.epsilon = clip_norm, beta_1, beta_2, epsilon
        self.scale_loss = scale_loss
        self.first_moments = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in variables]
        self.second_moments = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in variables]
        self.updates = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.loss_scale = tf.Variable(2.0**15 if scale_loss else 1.0, trainable=False)
        self.steps_without_overflow = tf.Variable(0, dtype=tf.int64, trainable=False)

    def state(self) -> list[tf.Variable]:
        """Everything a checkpoint needs beside the weights themselves."""
        return [*self.first_moments, *self.second_moments, self.updates, self.loss_scale, self.steps_without_overflow]

    def apply(self, gradients: Sequence[tf.Tensor | tf.IndexedSlices | None], rate: tf.Tensor) -> tf.Tensor:
        """Takes one step with gradients of the scaled loss, already summed over replicas.

        Returns:
            [] float32 global norm of the unscaled gradients before clipping.
        """
        dense = [tf.zeros_like(v) if g is None else tf.cast(tf.convert_to_tensor(g), tf.float32)
                 for g, v in zip(gradients, self.trained, strict=True)]
        norm = tf.linalg.global_norm(dense) / self.loss_scale
        factor = 1.0 / self.loss_scale if self.scale_loss else 1.0   # times 1.0 would be a pass over all gradients
        if self.clip_norm:
            factor *= self.clip_norm / tf.maximum(norm, self.clip_norm)
        if not self.scale_loss:
            self._update(dense, factor, rate)
            return norm
        finite = tf.math.is_finite(norm)
        tf.cond(finite, lambda: self._update(dense, factor, rate), lambda: tf.constant(0))
        self._rescale(finite)
        return norm

    def _update(self, gradients: list[tf.Tensor], factor: tf.Tensor | float, rate: tf.Tensor) -> tf.Tensor:
        self.updates.assign_add(1)
        taken = tf.cast(self.updates, tf.float32)
        powers = tf.pow(self.beta_1, taken), tf.pow(self.beta_2, taken)
        for variable, gradient, m, v, decay in zip(
                self.trained, gradients, self.first_moments, self.second_moments, self.decay, strict=True):
            if decay:
                variable.assign_sub(variable * (rate * decay))
            # In a replica `handle` is this replica's copy; every replica takes the same step on the summed gradient.
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle, m=m.handle, v=v.handle, beta1_power=powers[0], beta2_power=powers[1], lr=rate,
                beta1=self.beta_1, beta2=self.beta_2, epsilon=self.epsilon,
                grad=gradient if isinstance(factor, float) else gradient * factor)
        return tf.constant(0)

    def _rescale(self, finite: tf.Tensor, growth_interval: int = 1000) -> None:
        """Halves the loss scale after an overflow, doubles it after `growth_interval` steps without one."""
        steps = tf.where(finite, self.steps_without_overflow + 1, 0)
        grown = steps >= growth_interval
        scale = tf.where(finite, tf.where(grown, self.loss_scale * 2, self.loss_scale), self.loss_scale / 2)
        self.loss_scale.assign(tf.clip_by_value(scale, 1.0, 2.0**24))
        self.steps_without_overflow.assign(tf.where(grown, tf.zeros_like(steps), steps))


def choose_precision(wanted: str) -> tuple[str, str]:
    """Decides the arithmetic of the layers.

    Args:
        wanted: `auto`, `float32`, `bfloat16` or `float16`.

    Returns:
        The precision and the reason, a phrase for the log.

    Raises:
        TextrailError: float16 on a CPU, which computes it slower than float32.
    """
    gpus = tf.config.list_physical_devices("GPU")
    tpus = tf.config.list_physical_devices("TPU")
    if wanted == "float16" and not gpus:
        raise TextrailError("a GPU for training.precision=float16", "a machine without one",
                            "Set training.precision to auto, bfloat16 or float32.")
    if wanted != "auto":
        return wanted, "as set in training.precision"
    if tpus:
        return "bfloat16", "a TPU computes in it"
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        if capability >= (8, 0):
            return "bfloat16", f"the GPU has compute capability {capability[0]}.{capability[1]}"
        if capability >= (7, 0):
            return "float16", f"the GPU has compute capability {capability[0]}.{capability[1]}: float16 units only"
        return "float32", "the GPU has no fast half precision"
    fast = sorted(cpu_flags() & set(FAST_BFLOAT16))
    if fast:
        return "bfloat16", f"the CPU has {' and '.join(fast)}"
    return "float32", f"the CPU has neither {' nor '.join(FAST_BFLOAT16)}"


def policy_of(precision: str) -> str:
    """Keras's dtype policy for a precision: variables stay in float32."""
    return precision if precision == "float32" else f"mixed_{precision}"
