"""The training loop: one for every shape.

A task brings a `forward` that turns a batch into sums (loss, weight, correct answers …); everything around it is
here: the step under a distribution strategy, the schedule, validation, early stopping with the best weights kept,
the weights of the last validation rounds and their mean, resuming after a kill, progress, TensorBoard, and stopping on
a loss that is not a number.
"""

from __future__ import annotations

import functools
import json
import math
import os
import time
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from modules import progress
from modules.errors import TextrailError
from modules.kept_weights import KeptWeights
from modules.optimization import AdamW, Schedule
from modules.rendezvous import place
from modules.streams import Streams, everybodys, has_several_processes, worker_number, workers

SILENT_SECONDS = 300   # After which one of several processes counts as dead.

Batch = dict[str, tf.Tensor]
Sums = dict[str, tf.Tensor]


@dataclass(frozen=True)
class TrainArgs:
    """What the Trainer component hands to a `run_fn`.

    Attributes:
        train_files: gzip TFRecords of transformed training examples.
        validation_files: the same for validation.
        transform_graph: folder of the transform graph; "" where examples were prepared without one.
        encoder: folder of the encoder in HuggingFace's layout; "" where training starts from new weights.
        serving_dir: where the SavedModel goes.
        run_dir: where TensorBoard logs and `history.json` go.
        checkpoint_dir: folder that outlives a killed run; a later run with the same inputs resumes from it.
        settings: the settings of the run that concern training, as plain values.
        vocabulary: folder of the learned vocabulary; "" where the encoder has its own.
    """

    train_files: list[str]
    validation_files: list[str]
    transform_graph: str
    encoder: str
    serving_dir: str
    run_dir: str
    checkpoint_dir: str
    settings: dict[str, Any]
    vocabulary: str = ""


@dataclass
class History:
    """What happened, kept through a resume.

    Attributes:
        step: steps taken.
        rounds: one dict a validation round: step, epoch, learning_rate, seconds, examples_per_second (or what else
            is counted), and the means of the sums for `train` and `validation`.
        best: best validation value so far, as a number where larger is better; none before the first round.
        best_round: index of the round it was reached in, -1 before the first.
        seconds: training time, in seconds, over all resumes.
        average: of the mean of the last rounds' weights, if it was tried: the `steps` of these rounds, the means of
            the sums for `validation`, and whether it was `taken` for being better than the best round's.
    """

    step: int = 0
    rounds: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    best_round: int = -1
    seconds: float = 0.0
    average: dict[str, Any] | None = None


def choose_strategy(wanted: str) -> tf.distribute.Strategy:
    """The distribution strategy of `training.strategy`.

    Raises:
        TextrailError: no GPU for `mirrored`, no TPU for `tpu`, no TF_CONFIG for `multi_worker`.
    """
    if wanted == "one_device":
        return tf.distribute.get_strategy()
    if wanted == "multi_worker":
        place()
        return _multi_worker()
    if wanted == "mirrored":
        cpus = tf.config.list_logical_devices("CPU")
        devices = tf.config.list_logical_devices("GPU") or (cpus if len(cpus) > 1 else [])
        if not devices:
            raise TextrailError("GPUs for training.strategy=mirrored", "a machine without one",
                                "Set training.strategy=one_device.")
        return _mirrored(tuple(device.name for device in devices))
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver("")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise TextrailError("a TPU for training.strategy=tpu", f"none that answers ({error})",
                            "Set training.strategy=one_device, or run on a TPU machine.") from error


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One for a process: sums over the same devices are numbered by their strategy, each from the same number on."""
    return tf.distribute.MirroredStrategy(devices)


@functools.cache
def _multi_worker() -> tf.distribute.Strategy:
    """A process joins its cluster once, and before anything else."""
    # TensorFlow has no public name for it: a process that is silent for ten seconds would end the training of all, and
    # one that exports, or that shares a busy processor, is silent for longer.
    from tensorflow.python.distribute import collective_all_reduce_strategy, multi_worker_util
    from tensorflow.python.eager import context

    job_of = collective_all_reduce_strategy.coordination_config_pb2.CoordinatedJob   # its place differs by release
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec()
    context.context().configure_coordination_service(
        service_type="standalone", service_leader=multi_worker_util.coordination_leader(cluster),
        coordinated_jobs=[job_of(name=job, num_tasks=cluster.num_tasks(job))
                          for job in cluster.jobs if job in ("chief", "worker")],
        heartbeat_timeout_in_ms=SILENT_SECONDS * 1000)
    return tf.distribute.MultiWorkerMirroredStrategy()


def replicas(wanted: str) -> int:
    """Devices that share a batch and need its size to be a multiple of their number; those of several processes, which
    take streams, do not.
    """
    return 1 if wanted == "multi_worker" else choose_strategy(wanted).num_replicas_in_sync


class Training:
    """One training, from its first step or from where a killed one left off.

    Args:
        forward: (batch, training) → sums over the batch: `loss` and `weight` (what the loss is divided by), and any
            further sums to be reported, each [] float32. A task with several losses has `NAME_loss` and `NAME_weight`
            for each, trains on the sum of their means, and gives in `weight` what its speed is told in.
        trained: name and variable of all that is trained, in a fixed order. Names tell what decays; Keras gives the
            same one to the same part of every block.
        state: further variables that change while training (seeds of dropout), kept in checkpoints.
        batches: epoch → its batches, or `Streams` of them; the same epoch gives the same batches again.
        steps_per_epoch: batches of an epoch.
        validation: batches to validate on, or `Streams` of them.
        settings: the `training` section of the settings. Each batch is computed in `accumulate` parts (1 where it is
            missing), of which the memory needs to hold one. Without `keep_checkpoints` and `average_checkpoints` no
            weights are kept but the best.
        scale_loss: true for float16.
        strategy: where it runs.
        run_dir: TensorBoard logs and `history.json`.
        checkpoint_dir: see `TrainArgs`.
        width: the model's hidden size, for a schedule that counts it.
        unit: what a weight of 1 is, for speeds: `examples`, `target_tokens`.
    """

    def __init__(self, *, forward: Callable[[Batch, bool], Sums], trained: Sequence[tuple[str, tf.Variable]],
                 state: Sequence[tf.Variable], batches: Callable[[int], tf.data.Dataset | Streams],
                 steps_per_epoch: int, validation: tf.data.Dataset | Streams, settings: dict[str, Any],
                 scale_loss: bool, strategy: tf.distribute.Strategy, run_dir: str, checkpoint_dir: str, width: int = 1,
                 unit: str = "examples"):
        self.forward, self.strategy, self.settings = forward, strategy, settings
        self.trained = [variable for _, variable in trained]
        self.batches, self.steps_per_epoch = batches, steps_per_epoch
        # Of several processes one writes what all read.
        self.is_chief = worker_number(strategy) == 0
        self.validation = self._distributed(validation)
        self.total_steps = steps_per_epoch * settings["epochs"]
        self.schedule = Schedule.of(settings, self.total_steps, width)
        self.history = History()
        self.run_dir, self.unit = run_dir, unit
        self.kept = KeptWeights(os.path.join(checkpoint_dir, "weights"), [name for name, _ in trained])
        self.writer = tf.summary.create_file_writer(run_dir)
        with strategy.scope():
            self.optimizer = AdamW(self.trained, [name for name, _ in trained], weight_decay=settings["weight_decay"],
                                   clip_norm=settings["clip_norm"], scale_loss=scale_loss, **{
                                       key: settings[key] for key in ("beta_1", "beta_2", "epsilon")
                                       if key in settings})
            self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.best_weights = [tf.Variable(v, trainable=False) for v in self.trained]
        self.bookkeeping = tf.Variable("", dtype=tf.string, trainable=False)
        self.checkpoints = tf.train.CheckpointManager(
            tf.train.Checkpoint(weights=self.trained, state=list(state), optimizer=self.optimizer.state(),
                                best=self.best_weights, step=self.step, bookkeeping=self.bookkeeping),
            checkpoint_dir, max_to_keep=2)
        self.train_step, self.validation_step = self._compile()

    def fit(self) -> History:
        """Trains, and leaves the best validated weights in the variables: a round's, or the mean of the last ones'.

        What is to be kept lies in `checkpoints/` of the run's folder then: the last rounds' weights, the best ones, and
        the mean, if it was tried.

        Returns:
            The history, also written to `history.json` in the run's folder.

        Raises:
            TextrailError: the loss, in training or in validation, is not a finite number.
        """
        self._resume()
        while self.history.step < self.total_steps and not self._out_of_patience():
            self._epoch(self.history.step // self.steps_per_epoch)
        for variable, best in zip(self.trained, self.best_weights, strict=True):
            variable.assign(best)
        self._hand_over()
        self.writer.close()
        return self.history

    def _distributed(self, batches: tf.data.Dataset | Streams, skip: int = 0) -> Any:
        if isinstance(batches, Streams):
            return batches.distributed(self.strategy, skip)
        return self.strategy.experimental_distribute_dataset(batches.skip(skip))

    def _wait_for_all(self) -> None:
        """Returns when every process has come here, the chief with its files written."""
        if has_several_processes(self.strategy):
            tf.function(lambda: self.strategy.reduce(
                tf.distribute.ReduceOp.SUM, self.strategy.run(lambda: tf.constant(1.0)), axis=None))()

    def _compile(self) -> tuple[Callable[[Batch], Sums], Callable[[Batch], Sums]]:
        # One trace with free batch and length: tracing BERT anew for each bucket would cost seconds apiece.
        options = {"input_signature": [self.validation.element_spec]}

        @tf.function(jit_compile=self.settings["xla"] or None, **options)
        def train_step(batch: Batch) -> Sums:
            return self._summed(self.strategy.run(self._replica_step, (batch,)))

        @tf.function(**options)
        def validation_step(batch: Batch) -> Sums:
            return self._summed(self.strategy.run(lambda one: self.forward(one, False), (batch,)))

        return train_step, validation_step

    def _replica_step(self, batch: Batch) -> Sums:
        parts = self.settings.get("accumulate", 1)
        sums, gradients = self._gradients(batch) if parts == 1 else self._accumulated(batch, parts)
        # All in one call: between machines a message costs more than what is in it.
        summed = iter(self._over_replicas([g for g in gradients if g is not None]))
        norm = self.optimizer.apply([None if g is None else next(summed) for g in gradients], self.schedule(self.step))
        self.step.assign_add(1)
        return {**sums, "gradient_norm": norm / self.strategy.num_replicas_in_sync}

    def _gradients(self, batch: Batch, weights: Sums | None = None) -> tuple[Sums, list[tf.Tensor | None]]:
        """A batch's sums and its loss's gradients; `weights` are those of the whole that the batch is a part of."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.trained)
            sums = self.forward(batch, True)
            weights = weights or self._weights(sums)
            loss = tf.add_n([tf.math.divide_no_nan(value, weights[weight_of(name, weights)])
                             for name, value in sums.items() if is_loss(name)]) * self.optimizer.loss_scale
        return sums, [None if g is None else tf.convert_to_tensor(g) for g in tape.gradient(loss, self.trained)]

    def _accumulated(self, batch: Batch, parts: int) -> tuple[Sums, list[tf.Tensor]]:
        """As `_gradients`, of so many parts of a batch one after the other: of the memory of one of them.

        What a loss is divided by is that of the whole batch, so the step is that of the whole batch.
        """
        # Of this nothing but the weights is computed: TensorFlow leaves out what nobody asks for.
        sums = self.forward(batch, False)
        weights, rows = self._weights(sums), tf.shape(next(iter(batch.values())))[0]
        parts = tf.minimum(parts, rows)   # none is empty

        def add(i: tf.Tensor, sums: Sums, gradients: list[tf.Tensor]) -> Any:
            part = {name: values[i * rows // parts:(i + 1) * rows // parts] for name, values in batch.items()}
            more, changes = self._gradients(part, weights)
            return (i + 1, {name: value + more[name] for name, value in sums.items()},
                    [total if g is None else total + tf.cast(g, tf.float32)
                     for total, g in zip(gradients, changes, strict=True)])

        nothing = {name: tf.zeros([]) for name in sums}, [tf.zeros(v.shape) for v in self.trained]
        _, sums, gradients = tf.while_loop(lambda i, *_: i < parts, add, [tf.constant(0), *nothing],
                                           parallel_iterations=1)
        return sums, gradients

    def _weights(self, sums: Sums) -> Sums:
        return self._over_replicas({name: value for name, value in sums.items() if name.endswith("weight")})

    def _over_replicas(self, values: Any) -> Any:
        """Sums over the devices, of tensors in lists or dicts."""
        if self.strategy.num_replicas_in_sync == 1:
            return values
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)

    def _summed(self, sums: Sums) -> Sums:
        return {name: self.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
                for name, value in sums.items()}

    def _epoch(self, epoch: int) -> None:
        done = self.history.step - epoch * self.steps_per_epoch
        every = max(1, self.steps_per_epoch // self.settings["evaluations_per_epoch"])
        meter = Meter(self.history.step, self.total_steps)
        saved = self.told = time.monotonic()
        # Validation also ends the epoch; a round just before its last few steps would only repeat it.
        due = {step for step in range(every, self.steps_per_epoch - every // 2, every)} | {self.steps_per_epoch}
        batches = self._distributed(self.batches(epoch), done)
        for position, batch in enumerate(batches, start=done + 1):
            meter.add(self.train_step(batch))
            self.history.step += 1
            if position in due:
                self._validate(epoch, meter)
                meter = Meter(self.history.step, self.total_steps)
                saved = time.monotonic()
                if self._out_of_patience():
                    return
            elif meter.tick_is_due():
                self._tick(epoch, meter)
                if time.monotonic() - saved > self.settings["checkpoint_seconds"]:
                    self._save(meter.seconds())
                    saved = time.monotonic()

    def _tick(self, epoch: int, meter: Meter) -> None:
        recent = meter.tick()
        self._stop_if_not_finite("training", recent["loss"])
        rate = float(self.schedule(self.step))
        with self.writer.as_default(step=self.history.step):
            for name, value in {**recent, "learning_rate": rate, self._speed: meter.rate()}.items():
                tf.summary.scalar(f"train/{name}", value)
        a_minute_passed = time.monotonic() - self.told > 60
        self.told = time.monotonic() if a_minute_passed else self.told
        progress.report(
            f"epoch {epoch + 1}/{self.settings['epochs']}, step {self.history.step}/{self.total_steps}, "
            f"loss {recent['loss']:.3f}, {self._told(meter.rate())}, {progress.duration(meter.left())} left",
            lasting=a_minute_passed, epoch=epoch + 1, step=self.history.step, loss=recent["loss"],
            seconds_left=meter.left(), **{self._speed: meter.rate()})

    def _validate(self, epoch: int, meter: Meter) -> None:
        train, seconds, rate = meter.means(), meter.seconds(), meter.rate()
        self._stop_if_not_finite("training", train["loss"])
        validation, history = self._validated(), self.history
        history.rounds.append({
            "step": history.step, "epoch": epoch + 1, "learning_rate": float(self.schedule(self.step - 1)),
            "seconds": round(seconds, 3), self._speed: round(rate, 2), "train": train,
            "validation": validation})
        value = self._value(validation)
        if history.best is None or value > history.best:
            history.best, history.best_round = value, len(history.rounds) - 1
            for best, variable in zip(self.best_weights, self.trained, strict=True):
                best.assign(variable)
        with self.writer.as_default(step=history.step):
            for name, number in validation.items():
                tf.summary.scalar(f"validation/{name}", number)
        self.writer.flush()
        if self._rounds_to_keep() and self.is_chief:
            self.kept.write(f"step-{history.step}", self.trained)
        self._save(seconds)
        if self.is_chief:
            self.kept.forget_all_but(f"step-{one['step']}" for one in history.rounds[-self._rounds_to_keep():])
        told = ", ".join(f"{name} {number:.4f}" for name, number in validation.items())
        progress.report(f"epoch {epoch + 1}/{self.settings['epochs']}, step {history.step}/{self.total_steps}: "
                        f"train loss {train['loss']:.4f}; validation {told}; {self._told(rate)}",
                        lasting=True, epoch=epoch + 1, step=history.step, loss=train["loss"], **{
                            f"validation_{name}": number for name, number in validation.items()})

    def _validated(self) -> dict[str, float]:
        """Means over the validation split."""
        validation = means([{name: value.numpy() for name, value in self.validation_step(batch).items()}
                            for batch in self.validation])
        self._stop_if_not_finite("validation", validation["loss"])
        return validation

    def _value(self, validation: dict[str, float]) -> float:
        """What rounds are compared by, larger is better."""
        metric = self.settings["early_stopping_metric"]
        return -validation["loss"] if metric == "loss" else validation[metric]

    def _rounds_to_keep(self) -> int:
        return max(self.settings.get("keep_checkpoints", 0), self.settings.get("average_checkpoints", 0))

    def _hand_over(self) -> None:
        """Tries the mean of the last rounds, and leaves in the run's folder what is to be kept."""
        folder, rounds = os.path.join(self.run_dir, "checkpoints"), self.history.rounds
        if not self._rounds_to_keep():
            return
        self._wait_for_all()
        for one in rounds[-self.settings.get("keep_checkpoints", 0) or len(rounds):]:
            self.kept.copy(f"step-{one['step']}", folder)
        self.kept.write("best", self.trained, folder)
        if self.settings.get("average_checkpoints", 0):
            self._average(rounds[-self.settings["average_checkpoints"]:], folder)
        self._write_history()

    def _average(self, rounds: Sequence[dict[str, Any]], folder: str) -> None:
        steps = [one["step"] for one in rounds]
        for variable, mean in zip(self.trained, self.kept.mean([f"step-{step}" for step in steps]), strict=True):
            variable.assign(mean)
        validation, best = self._validated(), self.history.rounds[self.history.best_round]["validation"]
        taken = self._value(validation) > self._value(best)
        self.kept.write("average", self.trained, folder)
        self.history.average = {"steps": steps, "validation": validation, "taken": taken}
        if not taken:
            for variable, weights in zip(self.trained, self.best_weights, strict=True):
                variable.assign(weights)
        told = ", ".join(f"{name} {number:.4f} (best round {best[name]:.4f})" for name, number in validation.items())
        progress.report(f"mean of the last {len(steps)} rounds: validation {told}; "
                        f"{'taken' if taken else 'the best round is taken'}", lasting=True)

    def _told(self, rate: float) -> str:
        return f"{rate:.0f} {self.unit.replace('_', ' ')}/s"

    @property
    def _speed(self) -> str:
        return f"{self.unit}_per_second"

    def _out_of_patience(self) -> bool:
        waited = len(self.history.rounds) - 1 - self.history.best_round
        return waited >= self.settings["patience"] * self.settings["evaluations_per_epoch"]

    def _stop_if_not_finite(self, what: str, loss: float) -> None:
        if not math.isfinite(loss):
            raise TextrailError(
                f"a finite {what} loss", f"{loss} within the steps up to {self.history.step}",
                "Lower training.learning_rate, keep training.clip_norm above 0, or set training.precision=float32.")

    def _save(self, seconds: float) -> None:
        self.history.seconds += seconds
        self.bookkeeping.assign(json.dumps(self.history.__dict__))
        if self.is_chief:
            self.checkpoints.save()
        self._write_history()

    def _write_history(self) -> None:
        with tf.io.gfile.GFile(os.path.join(self.run_dir, "history.json"), "w") as file:
            file.write(json.dumps(self.history.__dict__, indent=1))

    def _resume(self) -> None:
        if self.checkpoints.latest_checkpoint:
            self._restore()
        steps = {step for step, in everybodys(self.strategy, {worker_number(self.strategy): [self.history.step]},
                                              workers(self.strategy))}
        if len(steps) > 1:
            raise TextrailError(f"the same checkpoint in {self.checkpoints.directory} for all processes",
                                f"those of the steps {', '.join(map(str, sorted(steps)))}",
                                "Keep the workspace in a folder that all machines share, without delay.")

    def _restore(self) -> None:
        try:
            self.checkpoints.checkpoint.restore(self.checkpoints.latest_checkpoint).assert_consumed()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise TextrailError(
                f"a checkpoint of this very model in {self.checkpoints.directory}", f"another one ({error})",
                "Delete that folder to train from the beginning.") from error
        self.history = History(**json.loads(self.bookkeeping.numpy()))
        self._write_history()
        progress.report(f"resumed at step {self.history.step} of {self.total_steps}", lasting=True,
                        step=self.history.step)


class Meter:
    """Sums of the steps since the last validation, speed, and time left.

    Sums stay on the device until a tick: reading one waits for its step.
    """

    def __init__(self, step: int, total_steps: int, tick_seconds: float = 1.0):
        self.first_step, self.total_steps, self.tick_seconds = step, total_steps, tick_seconds
        self.read: list[dict[str, float]] = []
        self.waiting: list[Sums] = []
        self.started = self.ticked = time.monotonic()
        self.warm: float | None = None

    def add(self, sums: Sums) -> None:
        self.waiting.append(sums)
        if self.warm is None:
            # The first step traces the graph: speed counts from its end.
            next(iter(sums.values())).numpy()
            self.warm = self.ticked = time.monotonic()

    def tick_is_due(self) -> bool:
        return time.monotonic() - self.ticked > self.tick_seconds

    def tick(self) -> dict[str, float]:
        """Means of the steps since the last tick."""
        recent = [{name: float(value) for name, value in sums.items()} for sums in self.waiting]
        self.read += recent
        self.waiting, self.ticked = [], time.monotonic()
        return means(recent)

    def means(self) -> dict[str, float]:
        """Means of all steps."""
        if self.waiting:
            self.tick()
        return means(self.read)

    def seconds(self) -> float:
        """Seconds since the last call, so that a checkpoint adds up what was not yet counted."""
        now = time.monotonic()
        seconds, self.started = now - self.started, now
        return seconds

    def rate(self) -> float:
        """Weight (examples or tokens) a second."""
        if self.warm is None or len(self.read) <= 1:
            return 0.0
        return sum(sums["weight"] for sums in self.read[1:]) / max(self.ticked - self.warm, 1e-9)

    def left(self) -> float:
        """Seconds left at the present speed."""
        if self.warm is None or len(self.read) <= 1:
            return math.nan
        a_step = (self.ticked - self.warm) / (len(self.read) - 1)
        return (self.total_steps - self.first_step - len(self.read)) * a_step


def means(sums: Iterable[dict[str, float]]) -> dict[str, float]:
    """Adds up sums and divides each by its weight; a gradient norm is averaged over steps.

    Several losses add up to `loss`.
    """
    sums = list(sums)
    total = {name: float(sum(one[name] for one in sums)) for name in (sums[0] if sums else ())}
    found = {name: value / (len(sums) if name == "gradient_norm" else total[weight_of(name, total)] or math.nan)
             for name, value in total.items() if not name.endswith("weight")}
    losses = [value for name, value in found.items() if is_loss(name)]
    return {"loss": sum(losses), **found} if losses else found


def is_loss(name: str) -> bool:
    """Whether a sum is a loss that is trained on: `loss`, or `NAME_loss` of a task with several."""
    return name.rpartition("_")[2] == "loss"


def weight_of(name: str, names: Container[str]) -> str:
    """Which of the sums another one is divided by: `NAME_accuracy` by `NAME_weight`, where there is one."""
    own = f"{name.rpartition('_')[0]}_weight"
    return own if own in names else "weight"
